"""Makes the large models that benchmarks need, with random weights and a fixed seed.

    make_models.py NAME FILE [--external]

NAME is one of:
  bert_base   a stack of 12 encoder-like blocks with BERT-base's embedding table and matrix sizes,
              109 million parameters, 438 MB. Only its bytes matter: use it for reading and writing.
"""

import argparse
import pathlib

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HIDDEN, INNER, LAYERS, VOCABULARY = 768, 3072, 12, 30522


def bert_base():
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
        nodes, "bert_base",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "sequence"])],
        [helper.make_tensor_value_info("hidden", TensorProto.FLOAT, ["batch", "sequence", HIDDEN])],
        initializers)
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


MODELS = {"bert_base": bert_base}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=MODELS)
    parser.add_argument("file", type=pathlib.Path)
    parser.add_argument("--external", action="store_true", help="keep tensors in FILE.data")
    arguments = parser.parse_args()
    data = pathlib.Path(f"{arguments.file}.data")
    data.unlink(missing_ok=True)  # onnx appends to a file that is there
    onnx.save_model(MODELS[arguments.name](), arguments.file, save_as_external_data=arguments.external, location=data.name)


if __name__ == "__main__":
    main()
