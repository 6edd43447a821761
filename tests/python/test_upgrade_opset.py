"""upgrade_opset on the backend cases of libonnx-testdata and on the spellings of the oldest opsets.

The command compares both models itself, bit by bit, with its own engine. Here onnx.checker and ONNX Runtime look at what
it wrote.
"""

import concurrent.futures

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import BACKEND_DATA, relative_error
from onnx import TensorProto, helper, numpy_helper

TARGETS = (21, 25, 27)
NEWEST_OF_RUNTIME = 26
KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator")
# What the checker of onnx 1.22 says of any model with such a node.
CHECKER_FAULTS = {"test_mvn"}
RANDOM = ("bernoulli", "dropout", "random")
# ONNX Runtime has no kernel of the newest version.
NOT_IN_RUNTIME = {"test_roialign_aligned_false", "test_roialign_aligned_true"}


def session(model):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run_before(case):
    """Feeds and outputs of the case in ONNX Runtime, or nothing where it cannot run the model as it was."""
    try:
        runtime = session(str(case / "model.onnx"))
        feeds = {}
        for index, value in enumerate(runtime.get_inputs()):
            tensor = onnx.TensorProto()
            tensor.ParseFromString((case / "test_data_set_0" / f"input_{index}.pb").read_bytes())
            feeds[value.name] = numpy_helper.to_array(tensor)
        return feeds, runtime.run(None, feeds)
    except Exception:  # its errors have many types
        return None


def difference(expected, found):
    """What differs between two lists of outputs, or nothing."""
    for was, is_now in zip(expected, found, strict=True):
        if isinstance(was, (list, dict)) or was is None:
            continue
        was, is_now = np.asarray(was), np.asarray(is_now)
        if was.shape != is_now.shape or was.dtype != is_now.dtype:
            return f"{was.dtype}{was.shape} became {is_now.dtype}{is_now.shape}"
        if was.dtype.kind == "f" and was.size and not np.allclose(was, is_now, 1e-6, 1e-7, equal_nan=True):
            return "other numbers"
        if was.dtype.kind not in "f" and not (was == is_now).all():
            return "other elements"
    return None


def check_case(onnxpress, case, target, folder):
    path = folder / f"{case.name}.onnx"
    onnxpress("compress", case / "model.onnx", "-o", path, "--passes", f"upgrade_opset{{target={target}}}")
    model = onnx.load(path)
    found = {opset.domain: opset.version for opset in model.opset_import}.get("")
    original = {opset.domain: opset.version for opset in onnx.load(case / "model.onnx").opset_import}.get("")
    assert found == original or found == target >= original
    if case.name not in CHECKER_FAULTS:
        onnx.checker.check_model(model, full_check=True)
    if target > NEWEST_OF_RUNTIME or case.name in NOT_IN_RUNTIME or any(word in case.name for word in RANDOM):
        return False
    before = run_before(case)
    if before is None:
        return False
    feeds, expected = before
    assert difference(expected, session(str(path)).run(None, feeds)) is None
    return True


def test_backend_cases(onnxpress, tmp_path):
    """Each case goes to one of the targets in turn."""
    cases = sorted(path.parent for kind in KINDS for path in (BACKEND_DATA / kind).glob("*/model.onnx"))
    assert len(cases) > 1000

    def outcome(job):
        index, case = job
        folder = tmp_path / case.parent.name
        folder.mkdir(exist_ok=True)
        try:
            return check_case(onnxpress, case, TARGETS[index % len(TARGETS)], folder)
        except Exception as error:  # named below, all at once
            return f"{case.name} to {TARGETS[index % len(TARGETS)]}: {error}"

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(outcome, enumerate(cases)))
    failures = [text for text in outcomes if isinstance(text, str)]
    assert not failures, "\n".join(failures)
    assert outcomes.count(True) > 500  # that ONNX Runtime ran


FLOAT = TensorProto.FLOAT


def tensor(name, values, dtype=np.float32):
    return numpy_helper.from_array(np.array(values, dtype), name)


NOISE = np.random.default_rng(5)
WEIGHTS = [
    tensor("channels", [0.5, -1.5, 2.0]),
    tensor("positive", [0.5, 1.5, 2.0]),
    tensor("filter", NOISE.standard_normal((3, 3, 3, 3))),
    tensor("rows", NOISE.standard_normal((4, 4))),
    tensor("row", [1.0, 2.0, 3.0, 4.0]),
]

# Spellings that later opsets no longer have: opset, operators from x to y (of shape 2x3x4x4) or what their outputs are.
LEGACY = {
    "Add with axis": (6, [("Add", "x channels", "y", {"broadcast": 1, "axis": 1})]),
    "Add lined up at the end": (6, [("Add", "x row", "y", {"broadcast": 1})]),
    "Mul with a negative axis": (6, [("Mul", "x rows", "y", {"broadcast": 1, "axis": -2})]),
    "Pow with axis": (6, [("Abs", "x", "a", {}), ("Pow", "a positive", "y", {"broadcast": 1, "axis": 1})]),
    "consumed inputs": (1, [("Relu", "x", "a", {"consumed_inputs": [0]}), ("Sigmoid", "a", "b", {"consumed_inputs": [0]}),
                            ("Add", "b x", "y", {"consumed_inputs": [0, 0]})]),
    "Reshape by attribute": (1, [("Reshape", "x", "y", {"shape": [0, -1, 8]})]),
    "Concat without axis": (1, [("Concat", "x x", "y", {})]),
    "Cast by name": (5, [("Cast", "x", "a", {"to": "INT32"}), ("Cast", "a", "y", {"to": "FLOAT"})]),
    "Clip by attributes": (1, [("Clip", "x", "y", {"min": -0.5, "max": 0.5, "consumed_inputs": [0]})]),
    "Clip with one bound": (6, [("Clip", "x", "y", {"max": 0.25})]),
    "Selu before its constants had more digits": (1, [("Selu", "x", "y", {})]),
    "Dropout at test time": (6, [("Dropout", "x", "y", {"is_test": 1, "ratio": 0.3})]),
    "Dropout with its mask": (7, [("Dropout", "x", "a mask", {"ratio": 0.3}), ("Mul", "a mask", "y", {})]),
    "BatchNormalization at test time": (6, [("BatchNormalization", "x channels channels channels positive", "y",
                                             {"is_test": 1, "epsilon": 0.01, "spatial": 1})]),
    "BatchNormalization-7": (7, [("BatchNormalization", "x channels channels channels positive", "y", {"spatial": 1})]),
    "Pad-1": (1, [("Pad", "x", "y", {"paddings": [0, 0, 1, 1, 0, 0, 0, 1], "value": 2.0})]),
    "Pad-2": (2, [("Pad", "x", "y", {"pads": [0, 0, 1, 1, 0, 0, 0, 1], "mode": "reflect"})]),
    "Slice by attributes": (1, [("Slice", "x", "y", {"starts": [1, -2], "ends": [9, 9], "axes": [1, 3]})]),
    "Slice without axes": (9, [("Slice", "x", "y", {"starts": [0, 1], "ends": [1, 3]})]),
    "Split-1": (1, [("Split", "x", "a b", {"axis": 1, "split": [1, 2]}), ("ReduceSum", "b", "c", {"axes": [1]}),
                    ("Add", "a c", "y", {})]),
    "Split-2 into equal parts": (2, [("Split", "x", "a b", {"axis": 3}), ("Sub", "a b", "y", {})]),
    "Squeeze and Unsqueeze by attribute": (6, [("Unsqueeze", "x", "a", {"axes": [0, 3]}), ("Squeeze", "a", "y", {"axes": [0]})]),
    "reductions by attribute": (7, [("ReduceMean", "x", "a", {"axes": [2, 3]}), ("ReduceMax", "x", "b", {"axes": [-1]}),
                                    ("Mul", "a b", "c", {}), ("ReduceL2", "c", "y", {"keepdims": 0})]),
    "TopK by attribute": (1, [("TopK", "x", "y indices", {"k": 2, "axis": 3})]),
    "Upsample-1": (1, [("Upsample", "x", "y", {"height_scale": 2.0, "width_scale": 3.0})]),
    "Upsample-7": (7, [("Upsample", "x", "y", {"scales": [1.0, 1.0, 2.0, 1.5], "mode": "nearest"})]),
    "Upsample-7 linear": (7, [("Upsample", "x", "y", {"scales": [1.0, 1.0, 2.0, 2.0], "mode": "linear"})]),
    "Softmax of several axes": (1, [("Softmax", "x", "y", {})]),
    "Softmax of two axes": (11, [("Softmax", "x", "y", {"axis": -2})]),
    "LogSoftmax of one axis": (11, [("LogSoftmax", "x", "y", {"axis": 3})]),
    "Hardmax of several axes": (1, [("Hardmax", "x", "y", {"axis": 2})]),
    "PRelu by channel": (6, [("PRelu", "x channels", "y", {})]),
    "Gemm that broadcasts": (6, [("Reshape", "x shape", "a", {}), ("Gemm", "a rows row", "y", {"broadcast": 1, "alpha": 0.5})]),
    "LpPool with a float exponent": (1, [("LpPool", "x", "y", {"p": 2.0, "kernel_shape": [2, 2]})]),
    "Greater with axis": (6, [("Greater", "x channels", "a", {"broadcast": 1, "axis": 1}), ("Cast", "a", "y", {"to": 1})]),
    "Tile with one axis": (1, [("Tile", "x count axis", "y", {})]),
    "Scatter": (9, [("Scatter", "x places x", "y", {"axis": 3})]),
    "Conv and pools": (1, [("Conv", "x filter", "a", {"pads": [1, 1, 1, 1]}), ("MaxPool", "a", "b", {"kernel_shape": [2, 2]}),
                           ("AveragePool", "b", "c", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
                           ("GlobalAveragePool", "c", "d", {}), ("Flatten", "d", "y", {})]),
    "Sum, Max, Min, Mean": (1, [("Sum", "x x", "a", {"consumed_inputs": [0, 0]}), ("Max", "x a", "b", {}), ("Min", "a b", "c", {}),
                                ("Mean", "a b c", "y", {})]),
}  # fmt: skip


def legacy_model(opset, operators, shape=None):
    nodes = [helper.make_node(op, ins.split(), outs.split(), **attributes) for op, ins, outs, attributes in operators]
    extra = [
        tensor("shape", [-1, 4], np.int64),
        tensor("count", 2, np.float32 if opset < 6 else np.int64),
        tensor("axis", 1, np.float32 if opset < 6 else np.int64),
        tensor("places", np.argsort(np.random.default_rng(6).standard_normal((2, 3, 4, 4)), axis=3), np.int64),
    ]
    constants = [c for c in WEIGHTS + extra if any(c.name in node.input for node in nodes)]
    inputs = [helper.make_tensor_value_info("x", FLOAT, [2, 3, 4, 4])]
    inputs += [helper.make_tensor_value_info(c.name, c.data_type, c.dims) for c in constants]
    graph = helper.make_graph(nodes, "legacy", inputs, [helper.make_tensor_value_info("y", FLOAT, shape)], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=3)


X = np.random.default_rng(3).standard_normal((2, 3, 4, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def legacy(onnxpress, tmp_path_factory):
    """By name: opset, model and its output on X by our engine."""
    folder = tmp_path_factory.mktemp("legacy")
    np.savez(folder / "x.npz", x=X)
    cases = {}
    for index, (name, (opset, operators)) in enumerate(LEGACY.items()):
        path = folder / f"{index}.onnx"
        onnx.save(legacy_model(opset, operators), path)
        onnxpress("run", path, "--input", folder / "x.npz", "-o", folder / "y.npz")
        expected = np.load(folder / "y.npz")["y"]
        onnx.save(legacy_model(opset, operators, expected.shape), path)
        cases[name] = opset, path, expected
    return cases


@pytest.mark.parametrize("target", [7, 13, 18, 27])
def test_oldest_spellings(onnxpress, tmp_path, legacy, target):
    """The upgraded model in ONNX Runtime against the original on our engine."""
    for name, (opset, before, expected) in legacy.items():
        if opset >= target:
            continue
        after = tmp_path / "after.onnx"
        onnxpress("compress", before, "-o", after, "--passes", f"upgrade_opset{{target={target}}}", "--require-verified")
        model = onnx.load(after)
        assert [o.version for o in model.opset_import] == [target], name
        onnx.checker.check_model(model, full_check=True)
        if target > NEWEST_OF_RUNTIME:
            continue
        found = session(str(after)).run(["y"], {"x": X})[0]
        assert relative_error(expected, found) < 1e-5, name
