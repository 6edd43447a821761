"""quantize{scheme=static}: ONNX Runtime loads it and runs it on integers, and our engine agrees with it to one quantum."""

import collections

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import TESTDATA
from quantized_models import FAMILIES
from steps import WITHOUT_KERNELS, Steps, has_vnni, largest_code, session

CALIBRATION, HELD_OUT = 64, 8


def runtime(path, optimized=None):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if optimized:
        options.optimized_model_filepath = str(optimized)
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def operators_of(path):
    """Operators of a file, nested graphs included."""
    counts = collections.Counter()

    def count(graph):
        for node in graph.node:
            counts[node.op_type] += 1
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.GRAPH:
                    count(attribute.g)

    count(onnx.load(path).graph)
    return counts


def optimized_operators(path):
    optimized = path.with_name("optimized.onnx")
    runtime(path, optimized)
    return operators_of(optimized)


def snr(expected, found):
    expected, found = expected.astype(np.float64), found.astype(np.float64)
    noise = np.square(expected - found).sum()
    return np.inf if noise == 0 else 10 * np.log10(np.square(expected).sum() / noise)


def assert_engines_agree(onnxpress, path, feeds):
    """Codes at most one quantum apart wherever activations are quantized, as written and as ONNX Runtime fuses it."""
    steps = Steps(path)
    steps.compare(onnxpress, feeds, as_written=True)
    # Without VNNI its integer kernels saturate where weights have all 8 bits.
    if has_vnni() or largest_code(path) < 64:
        steps.compare(onnxpress, feeds, as_written=False)


def quantize(onnxpress, folder, source, data, options="", *arguments):
    """Quantizes and checks what holds for every model; returns the path and the record of the pass."""
    path = folder / "quantized.onnx"
    step = "quantize" + ("{" + options + "}" if options else "")
    report = onnxpress.report("compress", source, "-o", path, "--passes", step, "--calib", data, *arguments, folder=folder)
    record = next(p for p in report["passes"] if p["pass"] == "quantize")
    assert record["changed"]
    assert path.stat().st_size <= source.stat().st_size
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    keys = {tuple(layer) for layer in record["layers"]}
    assert len(keys) == 1, "layers have different keys"
    assert all(layer["kind"] in ("weight", "activation", "bias") for layer in record["layers"])
    return path, record


def prepared(folder, family):
    source, data = folder / "float.onnx", folder / "calibration.npz"
    onnx.save(family.model(), source)
    np.savez(data, **family.samples(CALIBRATION, 1))
    return source, data


@pytest.mark.parametrize("name", FAMILIES)
def test_default(onnxpress, tmp_path, name):
    family = FAMILIES[name]
    source, data = prepared(tmp_path, family)
    path, _ = quantize(onnxpress, tmp_path, source, data)
    feeds = family.samples(HELD_OUT, 2)
    for expected, found in zip(runtime(source).run(None, feeds), runtime(path).run(None, feeds)):
        assert snr(expected, found) >= 25
    found = optimized_operators(path)
    for operator, count in family.fused.items():
        assert found[operator] == count, f"{operator}: {found[operator]}, expected {count}; {dict(found)}"
    assert_engines_agree(onnxpress, path, feeds)


@pytest.mark.parametrize("target", ["ort-cpu-avx2", "openvino", "tensorrt", "qnn", "generic"])
@pytest.mark.parametrize("name", ["chain", "residual", "excitation", "products", "attention", "concat", "conv_transpose", "lstm"])
def test_targets(onnxpress, tmp_path, name, target):
    family = FAMILIES[name]
    source, data = prepared(tmp_path, family)
    path, record = quantize(onnxpress, tmp_path, source, data, "", "--target", target)
    assert f"target={target}" in record["text"]
    feeds = family.samples(HELD_OUT, 2)
    for expected, found in zip(runtime(source).run(None, feeds), runtime(path).run(None, feeds)):
        assert snr(expected, found) >= 20
    assert_engines_agree(onnxpress, path, feeds)
    model = onnx.load(path)
    constants = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    zero_points = [constants[n.input[2]] for n in model.graph.node if n.op_type == "QuantizeLinear"]
    if target == "tensorrt":
        assert all(z.dtype == np.int8 and not z.any() for z in zero_points)
        assert not any(layer["kind"] == "bias" for layer in record["layers"])
    else:
        assert all(z.dtype == np.uint8 for z in zero_points)
    codes = [constants[n.input[0]] for n in model.graph.node if n.op_type == "DequantizeLinear" and n.input[0] in constants]
    largest = max(np.abs(c.astype(np.int64)).max() for c in codes if c.dtype == np.int8)
    assert largest == (63 if target == "ort-cpu-avx2" else 127)


TYPES = {
    "act_type=int8": ("int8", "int8", 25),
    "act_type=int8,act_symmetric=true": ("int8", "int8", 25),
    "act_symmetric=true": ("uint8", "int8", 25),
    "act_bits=16": ("uint16", "int8", 35),
    "act_type=int16,act_symmetric=true,bits=16": ("int16", "int16", 60),
    "bits=4": ("uint8", "int4", 12),
    "type=uint4": ("uint8", "uint4", 12),
    "bits=6": ("uint8", "int8", 20),
    "bits=3,type=int8": ("uint8", "int8", 5),
    "type=uint8": ("uint8", "uint8", 25),
    "symmetric=false": ("uint8", "uint8", 25),
    "granularity=tensor": ("uint8", "int8", 22),
    "granularity=block,block=8": ("uint8", "int8", 25),
    "power_of_two=true": ("uint8", "int8", 20),
    "calibration=minmax": ("uint8", "int8", 25),
    "calibration=percentile,percentile=99.9": ("uint8", "int8", 15),
    "calibration=entropy": ("uint8", "int8", 15),
    "method=mse": ("uint8", "int8", 25),
    "act_bits=4": ("uint8", "int8", 10),
    "act_bits=5,act_type=int8": ("int8", "int8", 12),
    "act_bits=6,bits=4,type=int8": ("uint8", "int8", 10),
    "act_type=uint4": ("uint4", "int8", 10),
    "act_type=int4,act_symmetric=true": ("int4", "int8", 8),
    "act_type=float8e4m3fn": ("float8e4m3fn", "int8", 20),
    "act_type=float8e5m2": ("float8e5m2", "int8", 15),
    "type=float8e4m3fn": ("uint8", "float8e4m3fn", 20),
    "type=float8e5m2": ("uint8", "float8e5m2", 15),
    "act_type=float8e4m3fn,type=float8e4m3fn": ("float8e4m3fn", "float8e4m3fn", 20),
    "type=int16": ("uint16", "int16", 35),
    "type=int2,storage=smallest": ("uint8", "int2", 0),
}
"""Options: the storage of activations and of weights, and the least SNR of the output in dB."""

TYPE_FAMILIES = ["residual", "products"]


def runs_as_usual(onnxpress, steps, path, source, feeds, least):
    """Whether ONNX Runtime, with its own optimizations, loads the model and computes what it says."""
    try:
        steps.compare(onnxpress, feeds, as_written=False)
        found = runtime(path).run(None, feeds)
    except (AssertionError, onnxruntime.capi.onnxruntime_pybind11_state.InvalidGraph):
        return False
    return all(snr(a, b) >= least for a, b in zip(runtime(source).run(None, feeds), found))


@pytest.mark.parametrize("options", TYPES)
@pytest.mark.parametrize("name", TYPE_FAMILIES)
def test_types(onnxpress, tmp_path, name, options):
    activations, weights, least = TYPES[options]
    family = FAMILIES[name]
    source, data = prepared(tmp_path, family)
    path, record = quantize(onnxpress, tmp_path, source, data, options)
    feeds = family.samples(HELD_OUT, 2)
    for expected, found in zip(runtime(source).run(None, feeds), session(path, as_written=True).run(None, feeds)):
        assert snr(expected, found) >= least
    steps = Steps(path)
    steps.compare(onnxpress, feeds, as_written=True)
    reason = WITHOUT_KERNELS.reason(f"static/{name}/{options}")
    saturates = not has_vnni() and activations == "uint8" and largest_code(path) >= 64
    if reason or not saturates:
        assert runs_as_usual(onnxpress, steps, path, source, feeds, least) == (reason is None), reason
    told = any("disable_quant_qdq" in note for note in record["notes"])
    assert told or not reason, "the report does not say how ONNX Runtime is made to run it"
    for layer in record["layers"]:
        assert layer["storage"] == {"activation": activations, "weight": weights, "bias": "int32"}[layer["kind"]]
    if options == "power_of_two=true":
        scales = [layer["scale_min"] for layer in record["layers"] if layer["kind"] != "bias"]
        assert all(np.log2(scale).is_integer() for scale in scales)


def test_every_line_of_the_list_stands_for_a_case():
    cases = [f"static/{name}/{options}" for name in TYPE_FAMILIES for options in TYPES]
    assert not [line for line in WITHOUT_KERNELS.unused(cases) if line.startswith("static/")]


@pytest.mark.parametrize("name", ["chain", "residual", "excitation", "products", "concat"])
def test_operators_on_codes(onnxpress, tmp_path, name):
    family = FAMILIES[name]
    source, data = prepared(tmp_path, family)
    path, _ = quantize(onnxpress, tmp_path, source, data, "form=qoperator")
    found = operators_of(path)
    for operator, count in family.fused.items():
        assert found[operator] == count, f"{operator}: {dict(found)}"
    feeds = family.samples(HELD_OUT, 2)
    for expected, result in zip(runtime(source).run(None, feeds), runtime(path).run(None, feeds)):
        assert snr(expected, result) >= 25


TRAINED = {"digits_cnn": ("digits", 0.5), "digits_dwcnn": ("digits", 1.0), "digits_mlp": ("digits", 0.5),
           "digits_lstm": ("digits", 0.5), "speech_gru": ("speech", 1.0), "tiny_bert": ("tokens", 1.5),
           "digits_vae": ("digits", None), "tiny_bert_dynamo": ("tokens", 1.5)}


@pytest.mark.parametrize("name", TRAINED)
def test_trained(onnxpress, tmp_path, name):
    """Models of testdata keep their accuracy, and our engine runs them as ONNX Runtime does."""
    data, drop = TRAINED[name]
    path = tmp_path / "quantized.onnx"
    arguments = ["--eval", TESTDATA / f"{data}_test.npz"]
    if drop is not None:
        arguments += ["--max-drop", f"{drop}%"]
    report = onnxpress.report("compress", TESTDATA / f"{name}.onnx", "-o", path, "--passes", "simplify,fuse,quantize",
                              "--calib", TESTDATA / f"{data}_train.npz", *arguments, folder=tmp_path)
    assert report["passes"][-1]["layers"]
    inputs = runtime(path).get_inputs()
    arrays = np.load(TESTDATA / f"{data}_test.npz")
    keys = [key for key in arrays if key not in ("y", "labels")]
    feeds = {i.name: arrays[i.name if i.name in arrays else keys[k]][:8] for k, i in enumerate(inputs)}
    feeds = {i.name: feeds[i.name].reshape([8, *[d for d in i.shape[1:]]]) if all(isinstance(d, int) for d in i.shape[1:])
             else feeds[i.name] for i in inputs}
    assert_engines_agree(onnxpress, path, feeds)


def test_batch_norm_is_folded_first(onnxpress, tmp_path):
    report = onnxpress.report("compress", TESTDATA / "digits_cnn.onnx", "-o", tmp_path / "q.onnx", "--passes", "quantize",
                              "--calib", TESTDATA / "digits_train.npz", folder=tmp_path)
    assert [p["pass"] for p in report["passes"]] == ["fuse_conv_bn", "quantize"]
    assert "BatchNormalization" not in operators_of(tmp_path / "q.onnx")


def test_nothing_is_worth_it(onnxpress, tmp_path):
    family = FAMILIES["products"]
    source, data = prepared(tmp_path, family)
    model = onnx.load(source)
    for initializer in model.graph.initializer:
        array = onnx.numpy_helper.to_array(initializer)
        initializer.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(array[..., :4] if array.ndim == 1 else array[:4, :4]), initializer.name))
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 4
    del model.graph.value_info[:]
    onnx.save(model, source)
    np.savez(data, x=np.random.default_rng(1).standard_normal((64, 4)).astype(np.float32))
    report = onnxpress.report("compress", source, "-o", tmp_path / "q.onnx", "--passes", "quantize", "--calib", data,
                              "--explain", folder=tmp_path)
    assert not report["passes"][-1]["changed"]
    assert (tmp_path / "q.onnx").stat().st_size <= source.stat().st_size
    assert any("would grow" in miss["reason"] for miss in report["near_misses"])


def test_quantized_model_stays(onnxpress, tmp_path):
    family = FAMILIES["chain"]
    source, data = prepared(tmp_path, family)
    path, _ = quantize(onnxpress, tmp_path, source, data)
    report = onnxpress.report("compress", path, "-o", tmp_path / "again.onnx", "--passes", "quantize", "--calib", data,
                              "--explain", folder=tmp_path)
    assert not report["passes"][-1]["changed"]
    assert any("quantized already" in miss["reason"] for miss in report["near_misses"])


def test_heads_of_different_range_are_told(onnxpress, tmp_path):
    family = FAMILIES["heads"]
    source, data = prepared(tmp_path, family)
    path, record = quantize(onnxpress, tmp_path, source, data)
    assert any("very different ranges" in note and "left in float" in note for note in record["notes"])
    feeds = family.samples(HELD_OUT, 2)
    expected, found = runtime(source).run(None, feeds)[0], runtime(path).run(None, feeds)[0]
    assert snr(expected[..., 4:], found[..., 4:]) >= 25, "scores are lost beside boxes"


def test_overrides_and_selection(onnxpress, tmp_path):
    family = FAMILIES["chain"]
    source, data = prepared(tmp_path, family)
    path, record = quantize(onnxpress, tmp_path, source, data, "overrides='Conv_a1=float;op:Gemm=4'")
    assert operators_of(path)["DequantizeLinear"] > 0
    weights = {layer["tensor"]: layer for layer in record["layers"] if layer["kind"] == "weight"}
    assert "a_w" not in weights and {"c_w", "w"} <= set(weights)
    assert weights["w"]["bits"] == 4 and weights["w"]["storage"] == "int4"
    assert onnx.load(path).opset_import[0].version == 21
    onnxpress("compress", source, "-o", path, "--passes", "quantize{overrides='nosuch=float'}", "--calib", data, status=2)


@pytest.mark.parametrize("options,message", [
    ("act_bits=9", "expected one of 2, 3, 4, 5, 6, 7, 8, 16"), ("act_bits=3,act_type=uint4", "8-bit codes"),
    ("target=tensorrt,act_type=uint8", "signed activations without zero points"),
    ("form=contrib", "belong to scheme=weights"),
    ("form=qoperator,act_bits=16", "8-bit codes only"),
])
def test_contradictions(onnxpress, tmp_path, options, message):
    family = FAMILIES["products"]
    source, data = prepared(tmp_path, family)
    result = onnxpress("compress", source, "-o", tmp_path / "q.onnx", "--passes", "quantize{" + options + "}", "--calib", data, status=2)
    assert message in result.stderr.decode()
    assert not (tmp_path / "q.onnx").exists()


def test_nan_is_told(onnxpress, tmp_path):
    family = FAMILIES["products"]
    source, data = prepared(tmp_path, family)
    model = onnx.load(source)
    bad = next(i for i in model.graph.initializer if i.name == "w2")
    array = onnx.numpy_helper.to_array(bad).copy()
    array[0, 0] = np.nan
    bad.CopyFrom(onnx.numpy_helper.from_array(array, "w2"))
    onnx.save(model, source)
    report = onnxpress.report("compress", source, "-o", tmp_path / "q.onnx", "--passes", "quantize", "--calib", data, "--explain",
                              folder=tmp_path)
    assert any("NaN or infinity" in miss["reason"] for miss in report["near_misses"])
    assert "w2" not in {layer["tensor"] for layer in report["passes"][-1]["layers"]}
