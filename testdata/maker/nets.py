"""The networks, in the forms in which they are exported."""

import torch
from torch import nn

from . import data


def conv_bn(
    inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, act: type[nn.Module] | None = nn.ReLU
):
    """Convolution that keeps the size (at stride 1), batch normalization, activation."""
    layers = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, *([act()] if act else []))


class Mlp(nn.Sequential):
    """Three fully connected layers, 64-64-64-10."""

    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


class Residual(nn.Module):
    """Two 3x3 convolutions with a shortcut around them."""

    def __init__(self, channels: int):
        super().__init__()
        self.body = nn.Sequential(conv_bn(channels, channels, 3), conv_bn(channels, channels, 3, act=None))

    def forward(self, x):
        return torch.relu(x + self.body(x))


class Cnn(nn.Sequential):
    """LeNet-like network with batch normalization and a residual block."""

    def __init__(self):
        super().__init__(
            conv_bn(1, 32, 3), Residual(32), nn.MaxPool2d(2),
            conv_bn(32, 48, 3), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(192, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
        )  # fmt: skip


def separable(inputs: int, outputs: int, stride: int = 1):
    """Depthwise 3x3 then pointwise convolution (MobileNet)."""
    return nn.Sequential(
        conv_bn(inputs, inputs, 3, stride=stride, groups=inputs, act=nn.ReLU6),
        conv_bn(inputs, outputs, 1, act=nn.ReLU6),
    )


class InvertedResidual(nn.Module):
    """Expand, depthwise, project without activation, add (MobileNetV2)."""

    def __init__(self, channels: int, expanded: int):
        super().__init__()
        self.body = nn.Sequential(
            conv_bn(channels, expanded, 1, act=nn.ReLU6),
            conv_bn(expanded, expanded, 3, groups=expanded, act=nn.ReLU6),
            conv_bn(expanded, channels, 1, act=None),
        )

    def forward(self, x):
        return x + self.body(x)


class DepthwiseCnn(nn.Sequential):
    """MobileNet-like network of depthwise-separable convolutions."""

    def __init__(self):
        super().__init__(
            conv_bn(1, 24, 3, act=nn.ReLU6), separable(24, 48), InvertedResidual(48, 96), separable(48, 96, stride=2),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, 10),
        )  # fmt: skip


class Lstm(nn.Module):
    """Reads a digit row by row (8 steps of 8 pixels) and classifies the last hidden state."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(8, 48, batch_first=True)
        self.head = nn.Linear(48, 10)

    def forward(self, x):
        states, _ = self.lstm(x.squeeze(1))
        return self.head(states[:, -1])


class SpeechGru(nn.Module):
    """Convolutions over a spectrogram [N,1,F,T], a bidirectional GRU over time, log-probabilities [N,T,classes]."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(conv_bn(1, 12, 3), nn.MaxPool2d((2, 1)), conv_bn(12, 12, 3), nn.MaxPool2d((2, 1)))
        self.gru = nn.GRU(12 * data.SPEECH_BINS // 4, 40, batch_first=True, bidirectional=True)
        self.head = nn.Linear(80, data.SPEECH_CLASSES)

    def forward(self, x):
        frames = self.features(x).flatten(1, 2).transpose(1, 2)
        states, _ = self.gru(frames)
        return torch.log_softmax(self.head(states), dim=-1)


class Vae(nn.Module):
    """Convolutional variational autoencoder; in evaluation mode it decodes the mean."""

    def __init__(self, latent: int = 10):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 16, 3, 2, 1), nn.LeakyReLU(0.1), nn.Conv2d(16, 32, 3, 2, 1), nn.LeakyReLU(0.1), nn.Flatten()
        )
        self.mu = nn.Linear(128, latent)
        self.logvar = nn.Linear(128, latent)
        self.decoder = nn.Sequential(
            nn.Linear(latent, 128), nn.ReLU(), nn.Unflatten(1, (32, 2, 2)),
            nn.ConvTranspose2d(32, 16, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(16, 1, 4, 2, 1), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, x):
        hidden = self.encoder(x)
        mu, logvar = self.mu(hidden), self.logvar(hidden)
        code = mu + torch.randn_like(mu) * torch.exp(0.5 * logvar) if self.training else mu
        return self.decoder(code), mu, logvar


class SelfAttention(nn.Module):
    """Multi-head self-attention with an additive mask [N,1,1,S]."""

    def __init__(self, hidden: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(hidden, hidden) for _ in range(4))

    def split(self, x):
        return x.view(*x.shape[:-1], self.heads, x.shape[-1] // self.heads).transpose(1, 2)

    def forward(self, x, mask):
        query, key, value = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))
        scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5 + mask
        return self.out((scores.softmax(-1) @ value).transpose(1, 2).flatten(2))


class BertLayer(nn.Module):
    """Post-norm transformer encoder layer."""

    def __init__(self, hidden: int, heads: int):
        super().__init__()
        self.attention = SelfAttention(hidden, heads)
        self.attention_norm = nn.LayerNorm(hidden)
        self.mlp = nn.Sequential(nn.Linear(hidden, 4 * hidden), nn.GELU(), nn.Linear(4 * hidden, hidden))
        self.mlp_norm = nn.LayerNorm(hidden)

    def forward(self, x, mask):
        x = self.attention_norm(x + self.attention(x, mask))
        return self.mlp_norm(x + self.mlp(x))


class TinyBert(nn.Module):
    """Two-layer BERT-like encoder; classifies the first token after a tanh pooler."""

    def __init__(self, hidden: int = 64, heads: int = 4, layers: int = 2, positions: int = 64):
        super().__init__()
        self.tokens = nn.Embedding(data.VOCABULARY, hidden)
        self.positions = nn.Embedding(positions, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.layers = nn.ModuleList(BertLayer(hidden, heads) for _ in range(layers))
        self.pooler = nn.Linear(hidden, hidden)
        self.head = nn.Linear(hidden, 10)

    def forward(self, input_ids, attention_mask):
        mask = (1.0 - attention_mask[:, None, None, :].to(torch.float32)) * -10000.0
        positions = torch.arange(input_ids.shape[1])
        x = self.norm(self.tokens(input_ids) + self.positions(positions))
        for layer in self.layers:
            x = layer(x, mask)
        return self.head(torch.tanh(self.pooler(x[:, 0])))
