#!/usr/bin/env python3
"""Measures which weight-only DequantizeLinear models ONNX Runtime loads and runs right; prints Markdown.

Every case is a small model, initializer -> DequantizeLinear -> Conv, Gemm, MatMul or Gather, run on the CPU and
compared with NumPy. Needs the packages of tests/requirements.txt.

Usage: runtime_support.py >docs/runtime-support.md
"""

import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
from numpy.lib.stride_tricks import sliding_window_view
from onnx import TensorProto, helper, numpy_helper

BLOCK = 16
RIGHT = 1e-5
"""Largest error, relative to the largest output, that counts as right: reassociated float sums stay below it."""
CLOSE = 0.02
"""Largest relative error that counts as 'inexact' rather than 'wrong': what 8-bit activations cost."""

CONSUMERS = ("Conv", "Gemm", "MatMul", "Gather")
FIRST_OPSET = {"tensor": 10, "axis 0": 13, "axis 1": 13, "blocks, axis 0": 21, "blocks, axis 1": 21}
GRANULARITIES = tuple(FIRST_OPSET)
MODES = ("plain", "optimized", "optimized, float")
"""No graph optimizations; all; all, but with float activations in MatMulNBits (by default they become int8)."""
FLOAT_MATMUL = ("session.qdq_matmulnbits_accuracy_level", "0")


@dataclass(frozen=True)
class Kind:
    """A type of quantized weights: NumPy type, first opset, and whether its zero points can differ from zero."""

    dtype: type
    opset: int
    integer: bool = True
    scale: type = np.float32


KINDS = {
    "int8": Kind(np.int8, 10),
    "uint8": Kind(np.uint8, 10),
    "int16": Kind(np.int16, 21),
    "uint16": Kind(np.uint16, 21),
    "int4": Kind(ml_dtypes.int4, 21),
    "uint4": Kind(ml_dtypes.uint4, 21),
    "int2": Kind(ml_dtypes.int2, 25),
    "uint2": Kind(ml_dtypes.uint2, 25),
    "float8e4m3fn": Kind(ml_dtypes.float8_e4m3fn, 19, integer=False),
    "float8e4m3fnuz": Kind(ml_dtypes.float8_e4m3fnuz, 19, integer=False),
    "float8e5m2": Kind(ml_dtypes.float8_e5m2, 19, integer=False),
    "float8e5m2fnuz": Kind(ml_dtypes.float8_e5m2fnuz, 19, integer=False),
    "float4e2m1": Kind(ml_dtypes.float4_e2m1fn, 23, integer=False),
    "int8, float8e8m0 scale": Kind(np.int8, 24, scale=ml_dtypes.float8_e8m0fnu),
    "float8e4m3fn, float8e8m0 scale": Kind(ml_dtypes.float8_e4m3fn, 24, integer=False, scale=ml_dtypes.float8_e8m0fnu),
    "float4e2m1, float8e8m0 scale": Kind(ml_dtypes.float4_e2m1fn, 24, integer=False, scale=ml_dtypes.float8_e8m0fnu),
}  # fmt: skip

SUB_BYTE_KINDS = [name for name in KINDS if name.startswith(("int4", "uint4", "int2", "uint2", "float4"))]

WEIGHT_SHAPES = {"Conv": (8, 32, 3, 3), "Gemm": (32, 32), "MatMul": (32, 32), "Gather": (32, 32)}
ODD_WEIGHT_SHAPES = {"Conv": (3, 5, 3, 3), "Gemm": (7, 5), "MatMul": (5, 7), "Gather": (7, 5)}


@dataclass
class Case:
    """One model: its weights and how they are stored."""

    kind: Kind
    opset: int
    granularity: str
    consumer: str
    zero_point: bool
    shape: tuple[int, ...]

    def scale_shape(self) -> tuple[int, ...]:
        if self.granularity == "tensor":
            return ()
        axis = self.axis()
        if self.granularity.startswith("axis"):
            return (self.shape[axis],)
        return self.shape[:axis] + (-(-self.shape[axis] // BLOCK),) + self.shape[axis + 1 :]

    def axis(self) -> int:
        return int(self.granularity[-1])

    def widen(self, values: np.ndarray) -> np.ndarray:
        """Scales or zero points, in double precision, in a shape that broadcasts against the weights."""
        values = values.astype(np.float64)
        if self.granularity == "tensor":
            return values
        if self.granularity.startswith("axis"):
            return values.reshape([-1 if i == self.axis() else 1 for i in range(len(self.shape))])
        return values.repeat(BLOCK, axis=self.axis()).take(range(self.shape[self.axis()]), axis=self.axis())


def draw(rng: np.random.Generator, kind: Kind, shape: tuple[int, ...]) -> np.ndarray:
    """Random finite values of the kind, over its whole range if it is an integer type."""
    if not kind.integer:
        return rng.normal(0, 2, shape).astype(kind.dtype)
    limits = ml_dtypes.iinfo(kind.dtype)
    return rng.integers(int(limits.min), int(limits.max) + 1, shape).astype(kind.dtype)


def consume(consumer: str, weights: np.ndarray, x: np.ndarray) -> np.ndarray:
    """What the consumer computes, in double precision."""
    if consumer == "Conv":
        return np.einsum("nchwij,ocij->nohw", sliding_window_view(x, weights.shape[2:], axis=(2, 3)), weights)
    if consumer == "Gemm":
        return x @ weights.T
    if consumer == "MatMul":
        return x @ weights
    return weights[x]


def make_input(rng: np.random.Generator, case: Case) -> np.ndarray:
    if case.consumer == "Conv":
        return rng.normal(size=(2, case.shape[1], 6, 6)).astype(np.float32)
    if case.consumer == "Gather":
        return np.array([0, case.shape[0] - 1, 2], np.int64)
    return rng.normal(size=(3, case.shape[1 if case.consumer == "Gemm" else 0])).astype(np.float32)


def make_case(case: Case) -> tuple[onnx.ModelProto, np.ndarray, np.ndarray]:
    """The model, its input and the right output."""
    rng = np.random.default_rng(0)
    weights = draw(rng, case.kind, case.shape)
    scale = np.asarray(2.0 ** rng.integers(-4, 0, case.scale_shape()) * (1 if case.kind.scale != np.float32 else 0.3))
    scale = scale.astype(case.kind.scale)
    stored = {"weights": weights, "scale": scale}
    zero_point = np.zeros(case.scale_shape())
    if case.zero_point:
        stored["zero_point"] = (
            draw(rng, case.kind, case.scale_shape()) if case.kind.integer else zero_point.astype(case.kind.dtype)
        )
        zero_point = stored["zero_point"]
    x = make_input(rng, case)
    real_weights = (weights.astype(np.float64) - case.widen(zero_point)) * case.widen(scale)
    expected = consume(case.consumer, real_weights, x if x.dtype == np.int64 else x.astype(np.float64))

    attributes = {} if case.granularity == "tensor" else {"axis": case.axis()}
    if case.granularity.startswith("blocks"):
        attributes["block_size"] = BLOCK
    if case.kind.scale != np.float32:
        attributes["output_dtype"] = TensorProto.FLOAT
    bias = {"bias": np.zeros(case.shape[0], np.float32)} if case.consumer == "Gemm" else {}
    operands = ["w", "x"] if case.consumer == "Gather" else ["x", "w", *bias]
    nodes = [
        helper.make_node("DequantizeLinear", list(stored), ["w"], **attributes),
        helper.make_node(case.consumer, operands, ["y"], **({"transB": 1} if case.consumer == "Gemm" else {})),
    ]
    graph = helper.make_graph(
        nodes, "case",
        [helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, expected.shape)],
        [numpy_helper.from_array(array, name) for name, array in (stored | bias).items()],
    )  # fmt: skip
    return make_model(graph, case.opset), x, expected


def ir_version(opset: int) -> int:
    """The IR version released with an opset; the newest for opsets newer than the table."""
    return helper.OP_SET_ID_VERSION_MAP.get(("ai.onnx", opset), onnx.IR_VERSION)


def make_model(graph: onnx.GraphProto, opset: int) -> onnx.ModelProto:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version(opset))
    onnx.checker.check_model(model)
    return model


def first_line(error: Exception) -> str:
    """The first line of an error message without codes and C++ locations."""
    message = str(error).split("\n")[0].removeprefix("[ONNXRuntimeError] : ")
    message = re.sub(r"^\d+ : \w+ : ", "", message)
    return re.sub(r"\S+\.(cc|h):\d+ .*?\) (?=[A-Z])", "", message).strip()


def open_session(model: onnx.ModelProto, mode: str) -> onnxruntime.InferenceSession:
    levels = onnxruntime.GraphOptimizationLevel
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = levels.ORT_DISABLE_ALL if mode == "plain" else levels.ORT_ENABLE_ALL
    if mode == "optimized, float":
        options.add_session_config_entry(*FLOAT_MATMUL)
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def judge(case: Case, mode: str) -> tuple[str, str]:
    """'right', 'inexact', 'wrong', 'not loaded' or 'not run'; for the last two also the error message."""
    model, x, expected = make_case(case)
    try:
        session = open_session(model, mode)
    except Exception as error:
        return "not loaded", first_line(error)
    try:
        (actual,) = session.run(None, {"x": x})
    except Exception as error:
        return "not run", first_line(error)
    error = np.abs(actual - expected).max() / np.abs(expected).max()
    return "right" if error <= RIGHT else "inexact" if error <= CLOSE else "wrong", ""


class Notes:
    """Footnotes, each distinct text once."""

    def __init__(self):
        self.numbers: dict[str, int] = {}

    def mark(self, text: str) -> str:
        return f"[{self.numbers.setdefault(text, len(self.numbers) + 1)}]"


def cell(kind: Kind, opset: int, granularity: str, shapes: dict[str, tuple[int, ...]], notes: Notes) -> str:
    """The verdict over consumers, zero point or none, and modes; exceptions from the commonest are named."""
    if opset < FIRST_OPSET[granularity]:
        return ""
    verdicts: dict[str, list[str]] = {}
    for consumer in CONSUMERS:
        for mode in MODES:
            found: dict[str, list[str]] = {}
            for zero_point in (False, True):
                verdict, message = judge(Case(kind, opset, granularity, consumer, zero_point, shapes[consumer]), mode)
                text = f"{verdict} {notes.mark(message)}" if message else verdict
                found.setdefault(text, []).append(" with zero point" if zero_point else " without zero point")
            for text, variants in found.items():
                name = f"{consumer}{variants[0] if len(found) > 1 else ''} ({mode})"
                verdicts.setdefault(text, []).append(name)
    common = max(verdicts, key=lambda text: len(verdicts[text]))
    rest = [f"{text}: {', '.join(names)}" for text, names in verdicts.items() if text != common]
    return "; ".join([common, *rest])


def table(kinds: list[str], shapes: dict[str, tuple[int, ...]], newest_opset: int, notes: Notes) -> Iterator[str]:
    """A Markdown table of kinds and opsets; neighbouring opsets with equal results share a row."""
    yield f"| type | opset | {' | '.join(GRANULARITIES)} |"
    yield "|" + "---|" * (2 + len(GRANULARITIES))
    for name in kinds:
        kind = KINDS[name]
        rows: list[tuple[list[int], list[str]]] = []
        for opset in range(kind.opset, newest_opset + 1):
            cells = [cell(kind, opset, granularity, shapes, notes) for granularity in GRANULARITIES]
            if rows and rows[-1][1] == cells:
                rows[-1][0].append(opset)
            else:
                rows.append(([opset], cells))
        for opsets, cells in rows:
            span = f"{opsets[0]}-{opsets[-1]}" if len(opsets) > 1 else str(opsets[0])
            yield f"| {name} | {span} | {' | '.join(cells)} |"


def matmul_table(opset: int) -> Iterator[str]:
    """A Markdown table of MatMul with per-tensor weights [K,N] by mode and N, over several K."""
    columns, rows = (*range(1, 10), 16, 18), (5, 32, 33, 64)
    yield f"| type | mode | {' | '.join(f'N={n}' for n in columns)} |"
    yield "|" + "---|" * (2 + len(columns))
    for name in ("int8", "uint8", "int4", "uint4", "int2", "uint2"):
        for mode in MODES[1:]:
            verdicts = []
            for n in columns:
                cases = [Case(KINDS[name], opset, "tensor", "MatMul", False, (k, n)) for k in rows]
                verdicts.append(", ".join(sorted({judge(case, mode)[0] for case in cases})))
            yield f"| {name} | {mode} | {' | '.join(verdicts)} |"


def load_result(opset: int, ir: int) -> str:
    """What happens when a model with only an Identity node is loaded."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "limits", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)
    try:
        open_session(model, "plain").run(None, {"x": np.ones(1, np.float32)})
    except Exception as error:
        return first_line(error)
    return "loads"


def main() -> None:
    notes = Notes()
    newest_ir = max(ir for ir in range(3, 31) if load_result(17, ir) == "loads")
    newest_opset = max(opset for opset in range(7, 41) if load_result(opset, newest_ir) == "loads")
    odd_shapes = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in ODD_WEIGHT_SHAPES.items())
    print(f"""\
# What ONNX Runtime runs of weight-only quantization

Printed by `bench/runtime_support.py`: facts about exactly this version, on the CPU execution provider.

- onnxruntime {onnxruntime.__version__}, onnx {onnx.__version__}, numpy {np.__version__},
  {platform.system()} {platform.machine()}.
- Model: initializer -> DequantizeLinear -> Conv, Gemm (transB), MatMul (weights on the right) or Gather.
- Scales are float32 where nothing else is said. Blocks have {BLOCK} elements. The IR version is the one released with
  the opset.
- A cell sums up all four consumers, each without and with a zero point (0 for the float types), in three modes: `plain`
  (graph optimizations off), `optimized` (all on, which is the default) and `optimized, float` (all on, and the session
  option `{FLOAT_MATMUL[0]}` set to {FLOAT_MATMUL[1]}). What differs from the rest is named.
- right: error against NumPy, relative to the largest output, at most {RIGHT:g}; inexact: at most {CLOSE:g};
  wrong: more; empty: not in the ONNX standard at that opset.

## Newest versions

- Highest IR version that loads: {newest_ir}. The next: "{load_result(17, newest_ir + 1)}"
- Highest opset that loads: {newest_opset}. The next: "{load_result(newest_opset + 1, newest_ir)}"

## Types, opsets and granularities
""")
    print("\n".join(table(list(KINDS), WEIGHT_SHAPES, newest_opset, notes)))
    print(f"""
## Sub-byte weights with an odd number of elements

Weights: {odd_shapes}.
""")
    print("\n".join(table(SUB_BYTE_KINDS, ODD_WEIGHT_SHAPES, newest_opset, notes)))
    print(f"""
## DequantizeLinear -> MatMul, optimized, by number of columns

ONNX Runtime's optimizer turns the pair into com.microsoft.MatMulNBits. Weights [K,N], one scale, no zero point,
K = 5, 32, 33 and 64, opset {newest_opset}.
""")
    print("\n".join(matmul_table(newest_opset)))
    print("\n## Messages\n")
    for text, number in notes.numbers.items():
        print(f"- [{number}] {text}")


if __name__ == "__main__":
    main()
