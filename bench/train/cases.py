"""What speed.py times: networks, batches and losses, for both sides."""

import dataclasses
from collections.abc import Callable

import nets
import numpy as np
import torch
import torch.nn.functional as F

BATCHES = 4
"""Different batches that are gone through again and again."""
TEMPERATURE = 20.0


@dataclasses.dataclass(frozen=True)
class Case:
    net: Callable
    batch: int
    inputs: dict[str, Callable]  # name: made from (random generator, samples)
    classes: int = 10
    teacher: Callable | None = None
    rate: float = 0.01

    def arrays(self):
        random = np.random.default_rng(1)
        samples = BATCHES * self.batch
        arrays = {name: make(random, samples) for name, make in self.inputs.items()}
        return {**arrays, "y": random.integers(0, self.classes, samples)}

    def loss_arguments(self):
        """Of bench_train."""
        if self.teacher is None:
            return ["--loss", "cross_entropy", "--target", "labels"]
        return ["--loss", "distillation", "--temperature", str(TEMPERATURE), "--target", "teacher"]


def loss_of(outputs, labels, teacher_outputs):
    """Cross-entropy with labels, or with a teacher the soft targets of Hinton, Vinyals, Dean 2015."""
    if teacher_outputs is None:
        return F.cross_entropy(outputs, labels)
    soft = F.softmax(teacher_outputs / TEMPERATURE, dim=1)
    return F.kl_div(F.log_softmax(outputs / TEMPERATURE, dim=1), soft, reduction="batchmean") * TEMPERATURE**2


def images(*dims):
    return {"input": lambda random, samples: random.standard_normal((samples, *dims), dtype=np.float32)}


def masks(random, samples):
    lengths = random.integers(64, 129, (samples, 1))
    return (np.arange(128) < lengths).astype(np.int64)


TOKENS = {
    "input_ids": lambda random, samples: random.integers(0, 30522, (samples, 128)),
    "attention_mask": masks,
    "token_type_ids": lambda random, samples: np.zeros((samples, 128), np.int64),
}
CASES = {
    "mlp": Case(lambda: nets.mlp(800), 128, images(784)),
    "distillation": Case(lambda: nets.mlp(800), 128, images(784), teacher=lambda: nets.mlp(1200)),
    "lenet5": Case(nets.lenet5, 128, images(1, 28, 28)),
    "resnet18": Case(nets.ResNet18, 64, images(3, 32, 32)),
    "lstm": Case(lambda: nets.Recurrent("LSTM"), 32, images(50, 64)),
    "gru": Case(lambda: nets.Recurrent("GRU"), 32, images(50, 64)),
    "bert_tiny": Case(nets.BertTiny, 32, TOKENS, classes=2),
}


def made(make):
    """The network with the weights that it has on both sides. No two vectors are equal: the exporter would make one
    of them."""
    torch.manual_seed(1)
    net = make()
    with torch.no_grad():
        for tensor in [*net.parameters(), *net.buffers()]:
            if tensor.dim() == 1 and tensor.is_floating_point():
                tensor += 0.01 * torch.rand_like(tensor)
    return net
