"""The networks whose training is timed, as anyone would write them in PyTorch."""

import pathlib
import sys

import torch
import torch.nn.functional as F
from torch import nn

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from maker import nets  # noqa: E402


def mlp(hidden):
    """784 to 10 classes, two hidden layers (Hinton, Vinyals, Dean 2015: teacher 1200, student 800)."""
    return nn.Sequential(nn.Linear(784, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 10))


def lenet5():
    """[N,1,28,28] to 10 classes (LeCun et al. 1998), with ReLU and max-pooling."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip


class ResNet18(nn.Module):
    """[N,3,32,32] to 10 classes: a 3x3 stem without pooling, as is usual for small images."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nets.conv_bn(3, 64, 3), nn.ReLU())
        widths = [64, 64, 64, 128, 128, 256, 256, 512, 512]
        self.blocks = nn.Sequential(*(
            nets.BasicBlock(before, width, 1 if before == width else 2) for before, width in zip(widths, widths[1:])
        ))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)))


class Recurrent(nn.Module):
    """[N,50,64] to 10 classes from the last of 50 steps: one layer of 128 (`kind`: LSTM or GRU)."""

    def __init__(self, kind):
        super().__init__()
        self.layer = getattr(nn, kind)(64, 128, batch_first=True)
        self.head = nn.Linear(128, 10)

    def forward(self, x):
        return self.head(self.layer(x)[0][:, -1])


class AttentionLayer(nets.BertLayer):
    def attend(self, query, key, value, mask):
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)


class BertTiny(nn.Module):
    """BERT-tiny (Turc et al. 2019): 2 layers of 128, 2 heads, vocabulary 30522; two classes from the pooled state."""

    def __init__(self):
        super().__init__()
        self.encoder = nets.Bert(hidden=128, layers=2, heads=2, layer=AttentionLayer)
        self.classifier = nn.Linear(128, 2)

    def forward(self, input_ids, attention_mask, token_type_ids):
        return self.classifier(self.encoder(input_ids, attention_mask, token_type_ids)[1])
