"""Makes the models that the benchmarks need, with random weights and fixed seeds.

    make_models.py [NAME ...] [--folder build/bench-models] [--external]

Without names, all that bench/engine/compare.py measures:
  resnet18 resnet50 bert_base speech lstm cifar_cnn mlp   standard architectures, exported by PyTorch, batch (and
                                     sequence or time) dynamic
  resnet50_int8 mobilefacenet_int8   8-bit forms made by onnxruntime's static quantization, of resnet50 (made before) and
                                     $ONNXPRESS_DATA/models/mobilefacenet.onnx (default ../shared)
and on request:
  mnist_lenet5 mnist_mobile cifar10_cnn   small classifiers trained on $ONNXPRESS_DATA/data (minutes each), for
             bench/quantize; with the last come cifar10_train.npz and cifar10_test.npz, the images decoded
  bert_sized the sizes of BERT-base's matrices, 109 million parameters, 438 MB, not its architecture: for reading and
             writing; needs no PyTorch. --external keeps its tensors in a second file.
"""

import argparse
import os
import pathlib
import subprocess
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HERE = pathlib.Path(__file__).resolve().parent
DATA = pathlib.Path(os.environ.get("ONNXPRESS_DATA", HERE.parents[1] / "shared"))
EXPORTED = ("resnet18", "resnet50", "bert_base", "speech", "lstm", "cifar_cnn", "mlp")
TRAINED = ("mnist_lenet5", "mnist_mobile", "cifar10_cnn")
QUANTIZED = {"resnet50_int8": "resnet50.onnx", "mobilefacenet_int8": DATA / "models" / "mobilefacenet.onnx"}

HIDDEN, INNER, LAYERS, VOCABULARY = 768, 3072, 12, 30522


def bert_sized():
    """Embedding lookup, then per block six matrices with their biases and a Gelu-like Relu."""
    random = np.random.default_rng(1)
    initializers, nodes = [], []

    def weight(name, *shape):
        values = random.standard_normal(shape, dtype=np.float32) * np.float32(0.02)
        initializers.append(numpy_helper.from_array(values, name))
        return name

    def linear(x, name, rows, columns):
        nodes.append(helper.make_node("MatMul", [x, weight(f"{name}.weight", rows, columns)], [f"{name}.product"], name))
        nodes.append(helper.make_node("Add", [f"{name}.product", weight(f"{name}.bias", columns)], [f"{name}.out"], f"{name}.add"))
        return f"{name}.out"

    nodes.append(helper.make_node("Gather", [weight("embedding", VOCABULARY, HIDDEN), "ids"], ["embedded"], "lookup"))
    x = "embedded"
    for layer in range(LAYERS):
        for part in ("query", "key", "value", "projection"):
            x = linear(x, f"block{layer}.{part}", HIDDEN, HIDDEN)
        x = linear(x, f"block{layer}.up", HIDDEN, INNER)
        nodes.append(helper.make_node("Relu", [x], [f"block{layer}.active"], f"block{layer}.relu"))
        x = linear(f"block{layer}.active", f"block{layer}.down", INNER, HIDDEN)
    weight("position_embedding", 512, HIDDEN)
    nodes.append(helper.make_node("Identity", [x], ["hidden"], "out"))
    graph = helper.make_graph(
        nodes, "bert_sized",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "sequence"])],
        [helper.make_tensor_value_info("hidden", TensorProto.FLOAT, ["batch", "sequence", HIDDEN])],
        initializers)
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def make(name, folder, external):
    file = folder / f"{name}.onnx"
    if name == "bert_sized":
        data = pathlib.Path(f"{file}.data")
        data.unlink(missing_ok=True)  # onnx appends to a file that is there
        onnx.save_model(bert_sized(), file, save_as_external_data=external, location=data.name)
    elif name in QUANTIZED:
        source = folder / QUANTIZED[name]  # an absolute one stays as it is
        subprocess.run([sys.executable, "-m", "maker.quantize", source, file.resolve()], check=True, cwd=HERE)
    elif name in TRAINED:
        from maker import trained  # noqa: PLC0415 (needs PyTorch)

        trained.train(name, DATA / "data", file)
        if name == "cifar10_cnn":
            for part in ("train", "test"):
                x, y = trained.cifar10(DATA / "data", part)
                np.savez_compressed(folder / f"cifar10_{part}.npz", x=x, y=y)
    else:
        from maker import export  # noqa: PLC0415 (needs PyTorch)

        export.export(name, file)
    return file


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    everything = [*EXPORTED, *QUANTIZED]
    parser.add_argument("names", nargs="*", default=everything, metavar="NAME")
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("build/bench-models"))
    parser.add_argument("--external", action="store_true", help="keep the tensors of `bert_sized` in a second file")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - {*everything, *TRAINED, "bert_sized"}:
        parser.error(f"no such model: {', '.join(sorted(unknown))}")
    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for name in arguments.names:
        file = make(name, folder, arguments.external)
        print(f"{file.name}: {file.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
