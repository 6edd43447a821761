#!/usr/bin/env python3
"""Loss curves of onnxpress and PyTorch side by side: the same initial weights, batches and optimizer.

    compare.py [--bench build/bench/bench_train] [NAME ...]    names of the models of testdata/, default all

In float64 the losses of 100 steps must agree to 1e-6. In float32 training magnifies rounding: PyTorch is also compared
with itself from weights of which every other one is moved to the next float, and in float64. Differences must be under
1e-3, or under the largest of these where PyTorch is further from itself than that.
"""

import argparse
import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from graph import GraphModule

ROOT = Path(__file__).resolve().parents[2]
OPTIMIZERS = {
    "momentum": lambda parameters, rate: torch.optim.SGD(parameters, rate, momentum=0.9),
    "nesterov": lambda parameters, rate: torch.optim.SGD(parameters, rate, momentum=0.9, nesterov=True),
    "adam": lambda parameters, rate: torch.optim.Adam(parameters, rate),
    "adamw": lambda parameters, rate: torch.optim.AdamW(parameters, rate, weight_decay=0),
    "rmsprop": lambda parameters, rate: torch.optim.RMSprop(parameters, rate),
}


def classification(values, batch):
    return F.cross_entropy(values["logits"], batch["y"])


def frames(values, batch):
    return F.nll_loss(values["log_probabilities"].transpose(1, 2), batch["y"])


def evidence_bound(values, batch):
    x = batch["x"]
    reconstruction = F.binary_cross_entropy(values["recon"], x, reduction="sum") / len(x)
    mu, logvar = values["mu"], values["logvar"]
    return reconstruction - 0.5 * (1 + logvar - mu**2 - logvar.exp()).sum() / len(x)


@dataclass
class Case:
    data: str = "digits"
    inputs: dict[str, str] = field(default_factory=lambda: {"x": "x"})
    loss: callable = classification
    arguments: list[str] = field(default_factory=lambda: ["--loss", "cross_entropy", "--target", "labels"])


BERT = Case("tokens", {name: name for name in ("input_ids", "attention_mask")})
CASES = {
    "digits_mlp": Case(),
    "digits_cnn": Case(),
    "digits_dwcnn": Case(inputs={"image": "x"}),
    "digits_lstm": Case(),
    "speech_gru": Case("speech", {"spectrogram": "x"}, frames,
                       ["--loss", "cross_entropy:log_probabilities", "--target", "labels"]),
    "digits_vae": Case(loss=evidence_bound, arguments=[
        "--loss", "binary_cross_entropy:recon", "--target", "x", "--loss", "gaussian_kl:mu:logvar"]),
    "tiny_bert": BERT,
    "tiny_bert_dynamo": BERT,
}  # fmt: skip


def perturb(module: torch.nn.Module, seed: int) -> None:
    """Moves about half of the parameters to the next float away from 0."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            is_moved = torch.rand(parameter.shape, generator=random) < 0.5
            parameter.copy_(torch.where(is_moved, torch.nextafter(parameter, 2 * parameter), parameter))


def peer(model: Path, case: Case, arrays, trained, optimizer, options, dtype, perturbation=None) -> list[float]:
    """PyTorch's losses."""
    module = GraphModule(model, trained, dtype).train()
    if perturbation is not None:
        perturb(module, perturbation)
    method = OPTIMIZERS[optimizer](module.parameters(), rate_of(optimizer, options))
    full = len(arrays["y"]) // options.batch
    losses = []
    for step in range(options.steps):
        rows = slice(step % full * options.batch, (step % full + 1) * options.batch)
        part = {name: module.as_tensor(array[rows]) for name, array in arrays.items()}
        method.zero_grad()
        loss = case.loss(module(**{name: part[key] for name, key in case.inputs.items()}), part)
        loss.backward()
        method.step()
        losses.append(loss.item())
    return losses


def rate_of(optimizer: str, options) -> float:
    return options.rate or (0.01 if optimizer in ("momentum", "nesterov") else 1e-3)


def difference(losses: list[float], others: list[float]) -> float:
    return max(abs(a - b) / max(abs(b), 1e-12) for a, b in zip(losses, others, strict=True))


def compare(name: str, optimizer: str, double: bool, options) -> bool:
    """Prints a line; whether the losses are close enough."""
    case = CASES[name]
    data = ROOT / "testdata" / f"{case.data}_train.npz"
    model = ROOT / "testdata" / f"{name}.onnx"
    command = [options.bench, model, data, *case.arguments, "--optimizer", optimizer, "--rate",
               str(rate_of(optimizer, options)), "--steps", str(options.steps), "--batch", str(options.batch),
               "--threads", "1", *(["--double"] if double else [])]  # fmt: skip
    ours = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    arrays = dict(np.load(data))

    def theirs(dtype, perturbation=None):
        return peer(model, case, arrays, ours["parameters"], optimizer, options, dtype, perturbation)

    expected = theirs(torch.float64 if double else torch.float32)
    found, bound, beside = difference(ours["losses"], expected), 1e-6, ""
    if not double:
        moved = [difference(theirs(torch.float32, seed), expected) for seed in range(3)]
        wide = difference(expected, theirs(torch.float64))
        bound = max(1e-3, *moved, wide)
        beside = f"; PyTorch from itself with other last bits {max(moved):.1e}, in float64 {wide:.1e}"
    print(f"{name:18} {optimizer:9} {'float64' if double else 'float32'} loss {expected[0]:.4f} -> {expected[-1]:.4f}, "
          f"largest relative difference {found:.1e}{beside}", flush=True)  # fmt: skip
    return found <= bound


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: {' '.join(CASES)}")
    parser.add_argument("--bench", type=Path, default=ROOT / "build" / "bench" / "bench_train")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=0, help="default 0.01, with adaptive methods 0.001")
    parser.add_argument("--optimizers", default="momentum,adam")
    options = parser.parse_args()
    if unknown := set(options.names) - set(CASES):
        parser.error(f"no such model: {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    failed = []
    for name in options.names or list(CASES):
        for optimizer in options.optimizers.split(","):
            if not compare(name, optimizer, True, options):
                failed.append((name, optimizer, "float64"))
            if optimizer == "momentum" and not compare(name, optimizer, False, options):
                failed.append((name, optimizer, "float32"))
    for entry in failed:
        print("differs:", *entry)
    raise SystemExit(bool(failed))


if __name__ == "__main__":
    main()
