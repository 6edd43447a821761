"""A depthwise ReLU network made hard to quantize on purpose, and brought back without data.

Every channel between two layers is multiplied by 10^U(-2,2), which the layer before takes and the layer behind undoes:
the function stays, but one scale per tensor no longer fits. Accuracy is measured by ONNX Runtime.

    python bench/make_models.py --folder build/bench-models/trained mnist_mobile
    build/python-env/bin/python bench/quantize/hard_net.py --onnxpress build/onnxpress
"""

import argparse
import os
import pathlib
import subprocess
import tempfile

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

LINEAR = ("Conv", "Gemm")
PASSED = ("Relu", "ReduceMean", "GlobalAveragePool", "Flatten", "Identity")
WEIGHTS = "quantize{scheme=weights,bits=8,granularity=tensor"
DYNAMIC = "quantize{scheme=dynamic,granularity=tensor"


class Graph:
    """Edges and constants of a model, by name."""

    def __init__(self, model):
        self.model = model
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self.readers = {}
        for node in model.graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)

    def scale(self, name, axis, factor):
        tensor = self.constants[name]
        array = numpy_helper.to_array(tensor)
        shape = [1] * array.ndim
        shape[axis] = -1
        scaled = (array.astype(np.float64) * factor.reshape(shape)).astype(array.dtype)
        tensor.CopyFrom(numpy_helper.from_array(scaled, name))

    def layers_behind(self, value):
        """Linear operators that read the value through what lets factors pass; None where something else does."""
        found = []
        for node in self.readers.get(value, []):
            if node.op_type in LINEAR:
                found.append(node)
            elif node.op_type in PASSED:
                more = self.layers_behind(node.output[0])
                if more is None:
                    return None
                found += more
            else:
                return None
        return found or None


def input_axis(node, weight):
    """Axis of the weight that the input's channels are: a depthwise convolution has them along axis 0."""
    if node.op_type == "Gemm":
        return 1 if any(a.name == "transB" and a.i for a in node.attribute) else 0
    return 0 if weight.dims[1] == 1 and weight.dims[0] > 1 else 1


def make_hard(model, seed):
    """Scales the channels behind every Conv, or behind the BatchNormalization that reads it."""
    graph, random, count = Graph(model), np.random.default_rng(seed), 0
    for node in model.graph.node:
        if node.op_type != "Conv":
            continue
        readers = graph.readers.get(node.output[0], [])
        normalized = len(readers) == 1 and readers[0].op_type == "BatchNormalization"
        maker = readers[0] if normalized else node
        behind = graph.layers_behind(maker.output[0])
        if behind is None:
            continue
        channels = graph.constants[node.input[1]].dims[0]
        factor = 10.0 ** random.uniform(-2, 2, channels)
        for name in maker.input[1:3]:
            graph.scale(name, 0, factor)
        for layer in behind:
            graph.scale(layer.input[1], input_axis(layer, graph.constants[layer.input[1]]), 1 / factor)
        count += 1
    return count


def accuracy(path, x, y):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    scores = [session.run(None, {name: x[i : i + 500]})[0] for i in range(0, len(x), 500)]
    return 100 * float((np.concatenate(scores).argmax(1) == y).mean())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--onnxpress", type=pathlib.Path, default=pathlib.Path("build/onnxpress"))
    parser.add_argument("--model", type=pathlib.Path, default=pathlib.Path("build/bench-models/trained/mnist_mobile.onnx"))
    parser.add_argument("--data", type=pathlib.Path, default=pathlib.Path(os.environ.get("ONNXPRESS_DATA", "../shared")))
    parser.add_argument("--test", type=pathlib.Path, help="test data (DATA/data/mnist_test.npz)")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    with np.load(arguments.test or arguments.data / "data" / "mnist_test.npz") as data:
        x, y = data["x"], data["y"]
    x = x.astype(np.float32) / 255 if x.dtype == np.uint8 else x

    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)

        def compress(source, target, passes):
            command = [arguments.onnxpress, "compress", source, "-o", target, "--passes", passes, "--quiet"]
            subprocess.run(command, check=True)
            return target

        folded = compress(arguments.model, folder / "folded.onnx", "simplify,fuse")
        kept = compress(arguments.model, folder / "kept.onnx", "simplify")
        print(f"{arguments.model.name}, {len(x)} samples: float {accuracy(folded, x, y):.2f} %")
        worst = 0.0
        for seed in range(arguments.seeds):
            for label, source in (("BatchNormalization folded", folded), ("BatchNormalization kept", kept)):
                model = onnx.load(source)
                pairs = make_hard(model, seed)
                hard = folder / "hard.onnx"
                onnx.save(model, hard)
                float_accuracy = accuracy(hard, x, y)
                print(f"seed {seed}, {label}: {pairs} layers made hard, float {float_accuracy:.2f} %")
                for what, passes in (
                    ("int8 weights, one scale per tensor", WEIGHTS + "}"),
                    ("  equalize", "equalize," + WEIGHTS + "}"),
                    ("  equalize, bias correction", "equalize," + WEIGHTS + ",bias_correction=analytic}"),
                    ("int8 weights and activations (dynamic)", DYNAMIC + "}"),
                    ("  equalize", "equalize," + DYNAMIC + "}"),
                ):
                    found = accuracy(compress(hard, folder / "quantized.onnx", passes), x, y)
                    print(f"  {what:42} {found:6.2f} %  {found - float_accuracy:+.2f} points")
                    if what.endswith("bias correction"):
                        worst = max(worst, float_accuracy - found)
        print(f"largest loss with equalization and bias correction, no data: {worst:.2f} points (bar: 0.5)")


if __name__ == "__main__":
    main()
