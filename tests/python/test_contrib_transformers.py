"""Operators of com.microsoft, and ai.onnx's transformer operators, against ONNX Runtime."""

import itertools

import numpy as np
import onnx
import pytest
from conftest import run_runtime
from onnx import TensorProto, helper

CONTRIB = "com.microsoft"
SEED = 7


def arrays(seed=SEED):
    """A function that makes float32 arrays of the given dims."""
    random = np.random.default_rng(seed)
    return lambda *dims: random.standard_normal(dims).astype(np.float32)


def int32(values):
    return np.asarray(values, dtype=np.int32)


def write_model(path, op, inputs, outputs, domain=CONTRIB, opset=20, **attributes):
    """One node; its first operand is the model's input x, the others are constants (None: omitted)."""
    names = [f"c{i}" if value is not None else "" for i, value in enumerate(inputs)]
    names[0] = "x"
    node = helper.make_node(op, names, [f"y{i}" if kind else "" for i, kind in enumerate(outputs)],
                            domain=domain, **attributes)
    graph = helper.make_graph(
        [node], "g",
        [helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(inputs[0].dtype), inputs[0].shape)],
        [helper.make_tensor_value_info(f"y{i}", kind, None) for i, kind in enumerate(outputs) if kind],
        [onnx.numpy_helper.from_array(value, names[i]) for i, value in enumerate(inputs) if i and value is not None])
    model = helper.make_model(graph, ir_version=10, opset_imports=[
        helper.make_opsetid("", opset), helper.make_opsetid(CONTRIB, 1)])
    path.write_bytes(model.SerializeToString())


@pytest.fixture
def check(onnxpress, tmp_path):
    """Runs one node with both and compares all outputs; `valid` picks what is defined."""

    def run(op, inputs, outputs=1, *, tolerance=1e-4, valid=None, **options):
        if isinstance(outputs, int):
            outputs = [TensorProto.FLOAT] * outputs
        model = tmp_path / "model.onnx"
        write_model(model, op, inputs, outputs, **options)
        np.savez(tmp_path / "in.npz", x=inputs[0])
        onnxpress("run", model, "--input", tmp_path / "in.npz", "-o", tmp_path / "out.npz")
        found = dict(np.load(tmp_path / "out.npz"))
        expected = run_runtime(model, {"x": inputs[0]})
        assert sorted(found) == sorted(expected)
        for name, array in expected.items():
            pick = (valid or {}).get(name, lambda a: a)
            assert found[name].shape == array.shape
            np.testing.assert_allclose(pick(found[name]).astype(np.float64), pick(array).astype(np.float64),
                                       rtol=tolerance, atol=tolerance)

    return run


@pytest.mark.parametrize("trans_a,trans_b,batch_a,batch_b", list(itertools.product([0, 1], repeat=4)))
def test_fused_matmul(check, trans_a, trans_b, batch_a, batch_b):
    make = arrays()

    def operand(shape, transposed, moved):
        *batch, rows, columns = shape
        if transposed:
            rows, columns = columns, rows
        return make(rows, *batch, columns) if moved else make(*batch, rows, columns)

    a, b = operand((2, 3, 4, 5), trans_a, batch_a), operand((2, 3, 5, 6), trans_b, batch_b)
    check("FusedMatMul", [a, b], alpha=0.5, transA=trans_a, transB=trans_b, transBatchA=batch_a, transBatchB=batch_b)


@pytest.mark.parametrize("op,a,b,attributes", [
    ("FusedMatMul", (5,), (2, 3, 5), {"transB": 1, "transA": 1}),
    ("FusedMatMul", (4, 5), (2, 5, 3), {"alpha": -2.0}),
    ("TransposeMatMul", (2, 4, 5), (2, 3, 5), {"transB": 1, "alpha": 3.0}),
])
def test_fused_matmul_ranks(check, op, a, b, attributes):
    make = arrays()
    check(op, [make(*a), make(*b)], **attributes)


@pytest.mark.parametrize("activation,parameters", [
    ("Relu", {}), ("Tanh", {}), ("Sigmoid", {}), ("Softplus", {}), ("Softsign", {}),
    ("LeakyRelu", {"activation_alpha": 0.1}), ("Elu", {"activation_alpha": 0.7}),
    ("ThresholdedRelu", {"activation_alpha": 0.3}),
    ("HardSigmoid", {"activation_alpha": 0.3, "activation_beta": 0.4}),
])
def test_fused_gemm(check, activation, parameters):
    make = arrays()
    check("FusedGemm", [make(4, 3), make(5, 3), make(5)], transB=1, alpha=1.5, beta=0.5,
          activation=activation, **parameters)


@pytest.mark.parametrize("activation,parameters", [
    ("Relu", []), ("Tanh", []), ("Sigmoid", []), ("LeakyRelu", [0.1]), ("Clip", [-0.5, 1.0]),
    ("HardSigmoid", [0.3, 0.4]), ("HardSwish", [0.2, 0.6]), ("HardSwish", []),
])
@pytest.mark.parametrize("summed", [False, True])
def test_fused_conv(check, activation, parameters, summed):
    make = arrays()
    inputs = [make(2, 4, 7, 6), make(6, 2, 3, 3), make(6)]
    if summed:
        inputs.append(make(2, 6, 4, 3))
    options = {"activation_params": parameters} if parameters else {}
    check("FusedConv", inputs, activation=activation, group=2, strides=[2, 2], pads=[1, 1, 1, 1], **options)


@pytest.mark.parametrize("op,bias,attributes", [
    ("Gelu", False, {}), ("FastGelu", False, {}), ("FastGelu", True, {}), ("BiasGelu", True, {}),
    ("QuickGelu", False, {}), ("QuickGelu", False, {"alpha": 0.5}),
])
def test_gelu(check, op, bias, attributes):
    make = arrays()
    check(op, [3 * make(2, 5, 8)] + [make(8)] * bias, **attributes)


@pytest.mark.parametrize("op", ["SkipLayerNormalization", "SkipSimplifiedLayerNormalization"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("skip", [(2, 3, 8), (1, 3, 8), (3, 8)])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_skip_layer_norm(check, op, bias, skip, dtype):
    make = arrays()
    inputs = [make(2, 3, 8), make(*skip), make(8)]
    if op == "SkipLayerNormalization":
        inputs.append(make(8))
    if bias:
        inputs.append(make(8))
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    check(op, [value.astype(dtype) for value in inputs], [kind, 0, 0, kind],
          tolerance=1e-4 if dtype == np.float32 else 4e-3, epsilon=1e-3)


def test_skip_layer_norm_statistics(check):
    make = arrays()
    check("SkipLayerNormalization", [make(2, 3, 8), make(2, 3, 8), make(8)], 3)


@pytest.mark.parametrize("axis", [-1, 1])
def test_simplified_layer_norm(check, axis):
    make = arrays()
    scale = make(8) if axis == -1 else make(3, 8)
    check("SimplifiedLayerNormalization", [make(2, 3, 8), scale], 2, domain="", axis=axis, epsilon=1e-3)


@pytest.mark.parametrize("segments,mask,positions", list(itertools.product([False, True], repeat=3)))
def test_embed_layer_norm(check, segments, mask, positions):
    make = arrays()
    ids = int32([[0, 4, 2], [3, 1, 1]])
    inputs = [ids, ids % 2 if segments else None, make(5, 8), make(6, 8), make(2, 8) if segments else None,
              make(8), make(8), int32([[1, 1, 0], [1, 1, 1]]) if mask else None,
              int32([[0, 5, 2]]) if positions else None]
    while inputs[-1] is None:
        inputs.pop()
    check("EmbedLayerNormalization", inputs, [TensorProto.FLOAT, TensorProto.INT32, TensorProto.FLOAT])


B, S, N, D, P = 2, 3, 2, 4, 5
MASKS = {
    "none": lambda total: None,
    "ends": lambda total: int32([total, total - 1]),
    "ends and starts": lambda total: int32([total, total - 1, 0, 1]),
    "keys": lambda total: int32([[1] * total, [0] + [1] * (total - 1)]),
    "queries": lambda total: int32(np.arange(B * S * total).reshape(B, S, total) % 3 != 1),
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("past,causal,bias", [
    case for case in itertools.product([False, True], repeat=3)
    if not (case[0] and case[2])])  # ONNX Runtime takes no past state together with a bias
def test_attention(check, mask, past, causal, bias):
    make = arrays()
    total = S + P * past
    inputs = [make(B, S, 6), make(6, 3 * N * D), make(3 * N * D), MASKS[mask](total),
              make(2, B, N, P, D) if past else None, make(1, N, S, total) if bias else None]
    while inputs[-1] is None:
        inputs.pop()
    check("Attention", inputs, 2, num_heads=N, unidirectional=int(causal))


@pytest.mark.parametrize("attributes", [
    {"scale": 0.3}, {"mask_filter_value": -3.0}, {"qkv_hidden_sizes": [N * D, N * D, N * 2]}])
def test_attention_attributes(check, attributes):
    make = arrays()
    width = sum(attributes.get("qkv_hidden_sizes", [3 * N * D]))
    check("Attention", [make(B, S, 6), make(6, width), make(width), MASKS["keys"](S)], num_heads=N, **attributes)


@pytest.mark.parametrize("mask", ["none", "ends", "keys", "queries"])
@pytest.mark.parametrize("past,causal,biases", list(itertools.product([False, True], repeat=3)))
def test_multi_head_attention(check, mask, past, causal, biases):
    make = arrays()
    total = S + P * past
    inputs = [make(B, S, N * D), make(B, S, N * D), make(B, S, N * D), make(3 * N * D) if biases else None,
              MASKS[mask](total), make(B, 1, S, total) if biases else None]
    if past:
        inputs += [make(B, N, P, D), make(B, N, P, D)]
    while inputs[-1] is None:
        inputs.pop()
    check("MultiHeadAttention", inputs, 3, num_heads=N, unidirectional=int(causal))


@pytest.mark.parametrize("bias", [False, True])
def test_multi_head_cross_attention(check, bias):
    make = arrays()
    inputs = [make(B, S, N * D), make(B, N, P, D), make(B, N, P, D)] + [make(3 * N * D)] * bias
    check("MultiHeadAttention", inputs, num_heads=N, scale=0.7)
    check("MultiHeadAttention", [make(B, S, N * D), make(B, P, N * D), make(B, P, N * 3)], num_heads=N)


def test_multi_head_scores(check):
    make = arrays()
    check("MultiHeadAttention", [make(B, S, N * D), make(B, P, N * D), make(B, P, N * D), None, MASKS["keys"](P)],
          4, num_heads=N)


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("offset", [False, True])
@pytest.mark.parametrize("form", ["rows", "heads", "partial"])
def test_rotary_embedding(check, interleaved, offset, form):
    make = arrays()
    x = make(B, N, S, D) if form == "heads" else make(B, S, N * D)
    half = 1 if form == "partial" else D // 2
    positions = np.asarray([2] if offset else [[0, 1, 2], [4, 3, 7]], dtype=np.int64)
    options = {"num_heads": N, "rotary_embedding_dim": 2} if form == "partial" else {}
    check("RotaryEmbedding", [x, positions, make(8, half), make(8, half)], interleaved=interleaved, **options)


@pytest.mark.parametrize("rotary", [0, 1])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("options", [
    {}, {"local_window_size": 2}, {"softcap": 0.5}, {"smooth_softmax": 1}, {"scale": 0.2}, {"bias": True},
    {"rotary_interleaved": 1}])
@pytest.mark.parametrize("past", ["prompt", "one", "several"])
def test_group_query_attention(check, rotary, packed, options, past):
    make = arrays()
    heads, kv_heads, width = 4, 2, 16
    options = dict(options)
    rows = 1 if past == "one" else S
    batch = 1 if past == "several" else B  # all that ONNX Runtime takes
    if past == "prompt":
        totals, capacity = [rows, rows], 0
    else:
        totals, capacity = [P + rows, P + rows - 2][:batch], P
    total = max(totals)
    bias = make(batch, 1, rows, total) if options.pop("bias", False) else None
    if packed:
        inputs = [make(batch, rows, (heads + 2 * kv_heads) * width), None, None]
    else:
        inputs = [make(batch, rows, heads * width), make(batch, rows, kv_heads * width),
                  make(batch, rows, kv_heads * width)]
    inputs += [make(batch, kv_heads, capacity, width), make(batch, kv_heads, capacity, width)]
    inputs += [int32(totals) - 1, int32(total)]
    inputs += [make(16, width // 2), make(16, width // 2)] if rotary else [None, None]
    inputs += [None, bias]
    while inputs[-1] is None:
        inputs.pop()

    def in_use(cache):
        return np.concatenate([cache[b, :, :n].reshape(-1) for b, n in enumerate(totals)])

    check("GroupQueryAttention", inputs, 3, num_heads=heads, kv_num_heads=kv_heads, do_rotary=rotary,
          valid={"y1": in_use, "y2": in_use}, **options)


@pytest.mark.parametrize("prompt", [False, True])
def test_group_query_attention_positions(check, prompt):
    make = arrays()
    rows, past = (S, 0) if prompt else (1, P)
    positions = np.asarray([[3, 9, 5], [1, 2, 3]] if prompt else [[2], [9]], dtype=np.int64)
    inputs = [make(B, rows, 64), make(B, rows, 32), make(B, rows, 32), make(B, 2, past, 16), make(B, 2, past, 16),
              int32([past + rows - 1] * B), int32(past + rows), make(16, 8), make(16, 8), positions]
    check("GroupQueryAttention", inputs, 3, num_heads=4, kv_num_heads=2, do_rotary=1)


def test_group_query_attention_of_all_rows(check):
    make = arrays()
    inputs = [make(B, S, 64), make(B, S, 32), make(B, S, 32), make(B, 2, 0, 16), make(B, 2, 0, 16),
              int32([S - 1] * B), int32(S)]
    check("GroupQueryAttention", inputs, 3, num_heads=4, kv_num_heads=2, causal=0)


def test_group_query_attention_sinks(check):
    make = arrays()
    inputs = [make(B, S, 32), make(B, S, 16), make(B, S, 16), make(B, 2, 0, 8), make(B, 2, 0, 8),
              int32([S - 1, S - 1]), int32(S), None, None, None, None, make(4)]
    check("GroupQueryAttention", inputs, 3, num_heads=4, kv_num_heads=2)


@pytest.mark.parametrize("upper", [0, 1])
@pytest.mark.parametrize("diagonal", [-9, -1, 0, 2, 9])
def test_trilu(check, upper, diagonal):
    check("Trilu", [arrays()(2, 4, 5), np.asarray(diagonal, dtype=np.int64)], upper=upper)


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean"])
def test_cdist(check, metric):
    make = arrays()
    check("CDist", [make(4, 6), make(5, 6)], metric=metric, tolerance=1e-3)


def test_inverse(check):
    check("Inverse", [arrays()(3, 5, 5) + 3 * np.eye(5, dtype=np.float32)])


@pytest.mark.parametrize("equation,shapes", [
    ("ij,jk->ik", [(3, 4), (4, 5)]), ("bhid,bhjd->bhij", [(2, 3, 4, 5), (2, 3, 6, 5)]),
    ("...ij,...jk", [(2, 1, 3, 4), (1, 5, 4, 2)]), ("bii->b", [(2, 3, 3)]), ("ij->", [(3, 4)]),
    ("i,j,k->kij", [(2,), (3,), (4,)]), ("ab,bc,cd->ad", [(2, 9), (9, 3), (3, 4)]), ("ba", [(2, 3)]),
])
def test_einsum(check, equation, shapes):
    make = arrays()
    check("Einsum", [make(*shape) for shape in shapes], domain="", equation=equation)


@pytest.mark.parametrize("length", [None, 7, 30])
@pytest.mark.parametrize("onesided,inverse,components", [(0, 0, 1), (1, 0, 1), (0, 0, 2), (0, 1, 2)])
def test_dft(check, length, onesided, inverse, components):
    inputs = [arrays()(2, 12, 3, components)]
    inputs += [np.asarray(length, dtype=np.int64) if length else None, np.asarray(1, dtype=np.int64)]
    check("DFT", inputs, domain="", onesided=onesided, inverse=inverse)
