#!/usr/bin/env python3
"""Makes everything in testdata/: data files, models, and what ONNX Runtime computes with them.

Usage: make.py [NAME ...]     names of models, default all
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import nn

from maker import data, expected, export, fit, nets

HERE = Path(__file__).resolve().parent
EXPECTED_SAMPLES = 32
BATCH = {0: "batch"}
TOKENS = {0: "batch", 1: "sequence"}


@dataclass
class Recipe:
    """How one model is trained and exported.

    `inputs` maps the graph's input names to the data files' array names; `data` names the files `data`_train.npz and
    `data`_test.npz.
    """

    net: Callable[[], nn.Module]
    exporter: str
    opset: int
    training: dict
    data: str = "digits"
    inputs: dict[str, str] = field(default_factory=lambda: {"x": "x"})
    outputs: list[str] = field(default_factory=lambda: ["logits"])
    dynamic: dict[str, export.Axes] = field(default_factory=lambda: {"x": BATCH, "logits": BATCH})
    classifier: bool = True


BERT = dict(
    training=dict(epochs=40, rate=5e-4, batch=32),
    data="tokens",
    inputs={name: name for name in ("input_ids", "attention_mask")},
    dynamic={"input_ids": TOKENS, "attention_mask": TOKENS, "logits": BATCH},
)

RECIPES = {
    "digits_mlp": Recipe(nets.Mlp, "torchscript", 13, dict(epochs=100, decay=0.3)),
    "digits_cnn": Recipe(nets.Cnn, "torchscript", 17, dict(epochs=40, augment=fit.shifted, decay=0.2)),
    "digits_dwcnn": Recipe(
        nets.DepthwiseCnn, "torchscript", 18, dict(epochs=40, augment=fit.shifted, decay=0.1),
        inputs={"image": "x"}, dynamic={"image": BATCH, "logits": BATCH},
    ),
    "digits_lstm": Recipe(nets.Lstm, "torchscript", 14, dict(epochs=60, rate=5e-3)),
    "speech_gru": Recipe(
        nets.SpeechGru, "torchscript", 20, dict(epochs=12, rate=5e-3), data="speech", inputs={"spectrogram": "x"},
        outputs=["log_probabilities"],
        dynamic={"spectrogram": {0: "batch", 3: "frames"}, "log_probabilities": {0: "batch", 1: "frames"}},
    ),
    "digits_vae": Recipe(
        nets.Vae, "dynamo", 22, dict(epochs=60, loss=fit.evidence_bound),
        outputs=["recon", "mu", "logvar"], dynamic={"x": BATCH}, classifier=False,
    ),
    "tiny_bert": Recipe(nets.TinyBert, "torchscript", 13, **BERT),
    "tiny_bert_dynamo": Recipe(nets.TinyBert, "dynamo", 23, **BERT),
}  # fmt: skip


def write_data() -> dict[str, data.Arrays]:
    """Makes the data files; the arrays by file name without ending."""
    train, test = data.digits()
    files = {
        "digits_train": train,
        "digits_test": test,
        "tokens_train": data.tokens(train),
        "tokens_test": data.tokens(test),
        "speech_train": data.speech(samples=320, seed=1),
        "speech_test": data.speech(samples=100, seed=2),
    }
    for name, arrays in files.items():
        np.savez_compressed(HERE / f"{name}.npz", **arrays)
    return files


def make_model(name: str, recipe: Recipe, files: dict[str, data.Arrays]) -> dict | None:
    """Trains and exports one model and writes its expected outputs; its accuracy if it is a classifier."""
    train, test = files[f"{recipe.data}_train"], files[f"{recipe.data}_test"]
    path = HERE / f"{name}.onnx"
    net = fit.fit(recipe.net, train, list(recipe.inputs.values()), **recipe.training)
    feeds = {graph_name: test[array_name] for graph_name, array_name in recipe.inputs.items()}
    first = {graph_name: array[:EXPECTED_SAMPLES] for graph_name, array in feeds.items()}
    examples = {graph_name: torch.from_numpy(array[:3]) for graph_name, array in feeds.items()}
    export.to_onnx(
        net, path, examples, recipe.outputs, exporter=recipe.exporter, opset=recipe.opset, dynamic=recipe.dynamic
    )
    expected.write_outputs(path, first, HERE / "expected" / f"{name}.npz")
    return expected.accuracy(path, feeds, test["y"]) if recipe.classifier else None


def write_accuracy(measured: dict[str, dict]) -> None:
    """Writes expected/accuracy.json, keeping the entries of models that were not remade."""
    path = HERE / "expected" / "accuracy.json"
    models = json.loads(path.read_text())["models"] if path.exists() else {}
    models.update(measured)
    ordered = {name: models[name] for name in RECIPES if name in models}
    content = {"onnxruntime": onnxruntime.__version__, "models": ordered}
    path.write_text(json.dumps(content, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"models to remake: {', '.join(RECIPES)}")
    names = parser.parse_args().names or list(RECIPES)
    unknown = set(names) - set(RECIPES)
    if unknown:
        parser.error(f"unknown models: {', '.join(sorted(unknown))}")
    (HERE / "expected").mkdir(exist_ok=True)
    files = write_data()
    measured = {}
    for name in names:
        result = make_model(name, RECIPES[name], files)
        print(f"{name}: {(HERE / name).with_suffix('.onnx').stat().st_size} bytes {result or ''}", flush=True)
        if result:
            measured[name] = result
    write_accuracy(measured)


if __name__ == "__main__":
    main()
