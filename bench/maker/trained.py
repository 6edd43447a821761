"""Small classifiers and their training on MNIST and CIFAR-10: models whose accuracy means something."""

import io
import tarfile

import numpy as np
import torch
from PIL import Image
from torch import nn

from . import nets

CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class LeNet5(nn.Sequential):
    """[N,1,28,28] to 10 classes (LeCun et al. 1998, with ReLU and max pooling)."""

    def __init__(self):
        super().__init__(
            nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
        )  # fmt: skip


class Mobile(nn.Module):
    """[N,1,28,28] to 10 classes: depthwise separable convolutions with BatchNorm and ReLU (Howard et al. 2017)."""

    def __init__(self, width=16):
        super().__init__()
        layers, channels = [nets.conv_bn(1, width, 3, 2), nn.ReLU()], width
        for outputs, stride in ((2 * width, 1), (4 * width, 2), (4 * width, 1), (8 * width, 2), (8 * width, 1)):
            layers += [
                nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False), nn.BatchNorm2d(channels),
                nn.ReLU(), nets.conv_bn(channels, outputs, 1), nn.ReLU(),
            ]  # fmt: skip
            channels = outputs
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(channels, 10)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


def mnist(folder, part):
    """uint8 [N,1,28,28] and int64 [N]."""
    with np.load(folder / f"mnist_{part}.npz") as data:
        return data["x"].reshape(-1, 1, 28, 28), data["y"]


def cifar10(folder, part):
    """uint8 [N,3,32,32] and int64 [N], decoded from JPEG files in the order of their names."""
    images, labels = [], []
    with tarfile.open(folder / "cifar10_jpeg.tar.xz") as archive:
        for member in archive:
            parts = member.name.split("/")
            if member.isfile() and parts[0] == part:
                image = Image.open(io.BytesIO(archive.extractfile(member).read())).convert("RGB")
                images.append((member.name, np.asarray(image).transpose(2, 0, 1)))
    images.sort(key=lambda named: named[0])
    labels = np.array([CIFAR_CLASSES.index(name.split("/")[1]) for name, _ in images])
    return np.stack([image for _, image in images]), labels


# name: (network, data set, epochs)
RECIPES = {
    "mnist_lenet5": (LeNet5, mnist, 6),
    "mnist_mobile": (Mobile, mnist, 5),
    "cifar10_cnn": (nets.CifarCnn, cifar10, 10),
}


def accuracy(net, x, y):
    net.eval()
    with torch.no_grad():
        scores = torch.cat([net(chunk.float() / 255) for chunk in torch.from_numpy(x).split(500)])
    return float((scores.argmax(1) == torch.from_numpy(y)).float().mean())


def train(name, data_folder, path):
    """Adam with a one-cycle rate, batches of 128, images as x / 255. Saves an ONNX model (opset 17, batch dynamic)."""
    make, load, epochs = RECIPES[name]
    torch.manual_seed(1)
    net = make()
    x, y = load(data_folder, "train")
    order, batch = np.random.default_rng(1), 128
    steps = epochs * (len(x) // batch)
    optimizer = torch.optim.Adam(net.parameters())
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for epoch in range(epochs):
        net.train()
        permuted = order.permutation(len(x))
        for first in range(0, len(x) - batch + 1, batch):
            chosen = permuted[first : first + batch]
            loss = nn.functional.cross_entropy(net(torch.from_numpy(x[chosen]).float() / 255), torch.from_numpy(y[chosen]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rate.step()
        print(f"{name}: epoch {epoch + 1} of {epochs}, loss {loss.item():.4f}", flush=True)
    print(f"{name}: {100 * accuracy(net, *load(data_folder, 'test')):.2f} % of the test set", flush=True)
    torch.onnx.export(
        net.eval(), torch.zeros(1, *x.shape[1:]), path, dynamo=False, opset_version=17, input_names=["input"],
        output_names=["output"], dynamic_axes={"input": {0: "batch"}, "output": {0: "batch"}},
        training=torch.onnx.TrainingMode.PRESERVE,
    )  # fmt: skip
