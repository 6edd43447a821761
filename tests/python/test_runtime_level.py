"""What level=runtime writes is loaded by ONNX Runtime, which computes the same."""

import collections

import onnx
import pytest
from conftest import TESTDATA, expected_arrays, relative_error, run_runtime


def operators(path):
    return collections.Counter(node.op_type for node in onnx.load(path).graph.node if node.domain == "com.microsoft")


def check_same(source, target, feeds):
    expected, found = run_runtime(source, feeds), run_runtime(target, feeds)
    for name, value in expected.items():
        assert relative_error(value, found[name]) < 1e-5, name


@pytest.mark.parametrize("name", ["tiny_bert", "tiny_bert_dynamo"])
def test_transformers(onnxpress, name, tmp_path):
    source, target = TESTDATA / f"{name}.onnx", tmp_path / "runtime.onnx"
    onnxpress("compress", source, "-o", target, "--passes", "simplify,fuse{level=runtime}")
    found = operators(target)
    assert found["EmbedLayerNormalization"] == 1
    layers = found["Attention"]
    assert layers > 0 and found["SkipLayerNormalization"] == 2 * layers
    check_same(source, target, expected_arrays(name)[0])


def test_attention_of_merged_projections(onnxpress, tmp_path):
    source, merged, target = TESTDATA / "tiny_bert.onnx", tmp_path / "merged.onnx", tmp_path / "runtime.onnx"
    onnxpress("compress", source, "-o", merged, "--preset", "lossless")
    onnxpress("compress", merged, "-o", target, "--passes", "simplify,fuse{level=runtime}")
    found, wanted = operators(target), operators_at_once(onnxpress, source, tmp_path)
    assert found["Attention"] == wanted["Attention"] > 0
    check_same(source, target, expected_arrays("tiny_bert")[0])


def operators_at_once(onnxpress, source, folder):
    onnxpress("compress", source, "-o", folder / "at_once.onnx", "--passes", "simplify,fuse{level=runtime}")
    return operators(folder / "at_once.onnx")
