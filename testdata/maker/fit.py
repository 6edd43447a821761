"""Seeded, single-threaded training."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

Loss = Callable[[object, list[torch.Tensor], torch.Tensor], torch.Tensor]


def shifted(inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    """Each image of the batch moved by -1, 0 or 1 pixels in both directions."""
    (images,) = inputs
    height, width = images.shape[2:]
    padded = F.pad(images, (1, 1, 1, 1))
    moves = torch.randint(0, 3, (len(images), 2)).tolist()
    return [torch.stack([image[:, i : i + height, j : j + width] for image, (i, j) in zip(padded, moves)])]


def cross_entropy(outputs, inputs, labels):
    """Of logits [...,classes] (or log-probabilities, whose softmax is the same) against labels [...]."""
    return F.cross_entropy(outputs.flatten(0, -2), labels.flatten())


def evidence_bound(outputs, inputs, labels):
    """Negative evidence lower bound of a variational autoencoder on images in 0..1."""
    recon, mu, logvar = outputs
    divergence = -0.5 * (1 + logvar - mu**2 - logvar.exp()).sum(1).mean()
    return F.binary_cross_entropy(recon, inputs[0], reduction="sum") / len(mu) + 0.5 * divergence


def fit(
    make_net: Callable[[], nn.Module],
    arrays: dict[str, np.ndarray],
    inputs: list[str],
    *,
    loss: Loss = cross_entropy,
    augment: Callable[[list[torch.Tensor]], list[torch.Tensor]] | None = None,
    epochs: int,
    rate: float = 2e-3,
    decay: float = 1e-2,
    batch: int = 64,
    seed: int = 0,
) -> nn.Module:
    """A new network trained with AdamW under a cosine schedule, in evaluation mode."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(seed)
    net = make_net().train()
    labels = torch.from_numpy(arrays["y"])
    features = [torch.from_numpy(arrays[name]) for name in inputs]
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=decay)
    steps = epochs * math.ceil(len(labels) / batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(labels)).split(batch):
            chosen = [feature[rows] for feature in features]
            if augment:
                chosen = augment(chosen)
            optimizer.zero_grad()
            loss(net(*chosen), chosen, labels[rows]).backward()
            optimizer.step()
            schedule.step()
    return net.eval()
