"""The standard architectures that are benchmarked, with PyTorch's default initialization unless said otherwise."""

import torch
from torch import nn


def conv_bn(inputs, outputs, kernel, stride=1):
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2015, "Deep Residual Learning for Image Recognition")."""

    expansion = 1

    def __init__(self, inputs, width, stride):
        super().__init__()
        outputs = width * self.expansion
        self.body = self.make_body(inputs, width, outputs, stride)
        self.shortcut = conv_bn(inputs, outputs, 1, stride) if stride != 1 or inputs != outputs else nn.Identity()

    def make_body(self, inputs, width, outputs, stride):
        return nn.Sequential(conv_bn(inputs, width, 3, stride), nn.ReLU(), conv_bn(width, outputs, 3))

    def forward(self, x):
        return torch.relu(self.body(x) + self.shortcut(x))


class Bottleneck(BasicBlock):
    """1x1, 3x3, 1x1; the stride is in the 3x3 convolution, as torchvision has it."""

    expansion = 4

    def make_body(self, inputs, width, outputs, stride):
        return nn.Sequential(
            conv_bn(inputs, width, 1), nn.ReLU(), conv_bn(width, width, 3, stride), nn.ReLU(), conv_bn(width, outputs, 1)
        )


class ResNet(nn.Module):
    """[N,3,224,224] to 1000 classes."""

    def __init__(self, block, depths):
        super().__init__()
        self.stem = nn.Sequential(conv_bn(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        blocks, channels = [], 64
        for stage, depth in enumerate(depths):
            for i in range(depth):
                blocks.append(block(channels, 64 << stage, 2 if stage > 0 and i == 0 else 1))
                channels = (64 << stage) * block.expansion
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        settle_batch_norm(self, torch.randn(8, 3, 224, 224))

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)))


def settle_batch_norm(net, x):
    """Random scales and shifts, and the statistics of two passes over data: activations keep their size."""
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, 0.0, 0.1)
        norm.momentum = None  # a plain average
    net.train()
    with torch.no_grad():
        for half in x.chunk(2):
            net(half)


class CifarCnn(nn.Module):
    """[N,3,32,32] to 10 classes."""

    def __init__(self):
        super().__init__()
        layers = []
        for inputs, outputs in ((3, 32), (32, 64), (64, 128)):
            layers += [nn.Conv2d(inputs, outputs, 3), nn.ReLU(), nn.MaxPool2d(2)]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, 128), nn.ReLU(), nn.Linear(128, 10))

    def forward(self, x):
        return self.body(x)


class Mlp(nn.Sequential):
    """784-1200-1200-10."""

    def __init__(self):
        super().__init__(nn.Linear(784, 1200), nn.ReLU(), nn.Linear(1200, 1200), nn.ReLU(), nn.Linear(1200, 10))


class Lstm(nn.Module):
    """[N,steps,100], two layers of 256; classifies the last step."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(100, 256, num_layers=2, batch_first=True)
        self.head = nn.Linear(256, 10)

    def forward(self, x):
        states, _ = self.rnn(x)
        return self.head(states[:, -1])


class Speech(nn.Module):
    """Spectrogram [N,1,161,time] to log-probabilities [N,steps,29]: two convolutions, two GRU layers."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 5), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.rnn = nn.GRU(64 * 37, 128, num_layers=2, batch_first=True)
        self.head = nn.Linear(128, 29)

    def forward(self, x):
        frames = self.features(x).permute(0, 3, 1, 2).flatten(2)
        states, _ = self.rnn(frames)
        return torch.log_softmax(self.head(states), dim=-1)


class BertLayer(nn.Module):
    """Post-norm encoder layer with an additive mask [N,1,1,S]."""

    def __init__(self, hidden, heads):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.projection = (nn.Linear(hidden, hidden) for _ in range(4))
        self.attention_norm = nn.LayerNorm(hidden, eps=1e-12)
        self.mlp = nn.Sequential(nn.Linear(hidden, 4 * hidden), nn.GELU(), nn.Linear(4 * hidden, hidden))
        self.mlp_norm = nn.LayerNorm(hidden, eps=1e-12)

    def split(self, x):
        return x.view(x.shape[0], x.shape[1], self.heads, x.shape[2] // self.heads).permute(0, 2, 1, 3)

    def attend(self, query, key, value, mask):
        scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5 + mask
        return scores.softmax(-1) @ value

    def forward(self, x, mask):
        query, key, value = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))
        context = self.attend(query, key, value, mask).permute(0, 2, 1, 3).flatten(2)
        x = self.attention_norm(x + self.projection(context))
        return self.mlp_norm(x + self.mlp(x))


class Bert(nn.Module):
    """BERT-base (Devlin et al. 2018): 12 layers of 768, 12 heads, vocabulary 30522; outputs all states and the pooled first."""

    def __init__(self, vocabulary=30522, hidden=768, layers=12, heads=12, positions=512, layer=BertLayer):
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, hidden)
        self.positions = nn.Embedding(positions, hidden)
        self.segments = nn.Embedding(2, hidden)
        self.norm = nn.LayerNorm(hidden, eps=1e-12)
        self.layers = nn.ModuleList(layer(hidden, heads) for _ in range(layers))
        self.pooler = nn.Linear(hidden, hidden)
        self.register_buffer("position_ids", torch.arange(positions)[None], persistent=False)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, 0.0, 0.02)

    def forward(self, input_ids, attention_mask, token_type_ids):
        mask = (1.0 - attention_mask[:, None, None, :].to(torch.float32)) * torch.finfo(torch.float32).min
        positions = self.positions(self.position_ids[:, : input_ids.shape[1]])
        x = self.norm(self.tokens(input_ids) + positions + self.segments(token_type_ids))
        for layer in self.layers:
            x = layer(x, mask)
        return x, torch.tanh(self.pooler(x[:, 0]))
