"""Export with PyTorch's two ONNX exporters, and removal of the exporting machine's paths."""

import re
from pathlib import Path

import onnx
import torch
from torch import nn

ABSOLUTE_PATH = re.compile(r"""(^|[\s"'=(])(/|[A-Za-z]:\\)[\w.~-]+[/\\]""")

Axes = dict[int, str]


def to_onnx(
    net: nn.Module, path: Path, examples: dict[str, torch.Tensor], outputs: list[str], *,
    exporter: str, opset: int, dynamic: dict[str, Axes],
) -> None:  # fmt: skip
    """Writes `net` as an ONNX file.

    `exporter` is "torchscript" (the older, tracing one, kept here from folding batch normalization into convolutions)
    or "dynamo" (which folds it). `dynamic` names the dynamic axes of inputs and, for torchscript, outputs.
    """
    torch.manual_seed(0)
    arguments = tuple(examples.values())
    if exporter == "torchscript":
        torch.onnx.export(
            net, arguments, path, dynamo=False, opset_version=opset, input_names=list(examples), output_names=outputs,
            dynamic_axes=dynamic, training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False,
        )  # fmt: skip
    else:
        shapes = tuple({axis: torch.export.Dim(label) for axis, label in dynamic[name].items()} for name in examples)
        torch.onnx.export(
            net, arguments, path, dynamo=True, opset_version=opset, input_names=list(examples), output_names=outputs,
            dynamic_shapes=shapes, external_data=False, verbose=False,
        )  # fmt: skip
    model = onnx.load(path)
    remove_paths(model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def remove_paths(message) -> None:
    """Removes, throughout a protobuf message, doc strings and metadata entries that hold absolute paths."""
    for field, value in message.ListFields():
        if field.name == "doc_string" and ABSOLUTE_PATH.search(value):
            message.ClearField(field.name)
        elif field.name == "metadata_props":
            kept = [entry for entry in value if not ABSOLUTE_PATH.search(entry.value)]
            del value[:]
            value.extend(kept)
        elif field.message_type:
            for child in value if field.is_repeated else [value]:
                remove_paths(child)
