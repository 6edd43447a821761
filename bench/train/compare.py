#!/usr/bin/env python3
"""Loss curves of onnxpress and PyTorch side by side: the same initial weights, batches and optimizer.

Usage: compare.py [--bench build/bench_train] [NAME ...]    names of the models of testdata/, default all
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


def peer(model: Path, case: Case, arrays, trained, optimizer, rate, steps, batch, dtype) -> list[float]:
    """PyTorch's losses."""
    module = GraphModule(model, trained, dtype).train()
    method = OPTIMIZERS[optimizer](module.parameters(), rate)
    full = len(arrays["y"]) // batch
    losses = []
    for step in range(steps):
        rows = slice(step % full * batch, (step % full + 1) * batch)
        part = {name: module.as_tensor(array[rows]) for name, array in arrays.items()}
        method.zero_grad()
        loss = case.loss(module(**{name: part[key] for name, key in case.inputs.items()}), part)
        loss.backward()
        method.step()
        losses.append(loss.item())
    return losses


def compare(bench: Path, name: str, optimizer: str, double: bool, steps: int, batch: int, rate: float) -> float:
    case = CASES[name]
    data = ROOT / "testdata" / f"{case.data}_train.npz"
    model = ROOT / "testdata" / f"{name}.onnx"
    command = [bench, model, data, *case.arguments, "--optimizer", optimizer, "--rate", str(rate), "--steps",
               str(steps), "--batch", str(batch), *(["--double"] if double else [])]  # fmt: skip
    ours = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    arrays = dict(np.load(data))
    dtype = torch.float64 if double else torch.float32
    theirs = peer(model, case, arrays, ours["parameters"], optimizer, rate, steps, batch, dtype)
    difference = max(abs(a - b) / max(abs(b), 1e-12) for a, b in zip(ours["losses"], theirs))
    print(f"{name:18} {optimizer:9} {'float64' if double else 'float32'} loss {theirs[0]:.4f} -> {theirs[-1]:.4f}, "
          f"largest relative difference {difference:.2e}", flush=True)  # fmt: skip
    return difference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--bench", type=Path, default=ROOT / "build" / "bench_train")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--optimizers", default="momentum,adam")
    options = parser.parse_args()
    torch.set_num_threads(1)
    failed = []
    for name in options.names or list(CASES):
        for optimizer in options.optimizers.split(","):
            rate = 0.01 if optimizer in ("momentum", "nesterov") else 1e-3
            run = lambda double: compare(options.bench, name, optimizer, double, options.steps, options.batch, rate)
            if run(True) > 1e-6:
                failed.append((name, optimizer, "float64"))
            if optimizer == "momentum" and run(False) > 1e-3:
                failed.append((name, optimizer, "float32"))
    for entry in failed:
        print("differs:", *entry)
    raise SystemExit(bool(failed))


if __name__ == "__main__":
    main()
