"""Published failures of other simplifiers, rebuilt small: here they must not happen.

Each case is named after the thread where users reported it. The command simplifies and fuses; outputs must stay what they were
in ONNX Runtime, the checker must accept the model, and the interface must stay.
"""

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import relative_error
from onnx import TensorProto, helper, numpy_helper

PASSES = "simplify,fuse"
BAR = 1e-4


def constant(name, values, dtype=np.float32):
    return numpy_helper.from_array(np.asarray(values, dtype), name)


def random(name, *shape, seed=0, low=None):
    values = np.random.default_rng([seed, *map(ord, name)]).standard_normal(shape)
    return constant(name, values if low is None else np.abs(values) + low)


def node(operator, inputs, outputs, **attributes):
    return helper.make_node(operator, inputs.split(), outputs.split(), name=f"{operator}_{outputs.split()[0]}", **attributes)


def model(nodes, inputs, outputs, initializers=(), opset=17, ir_version=8, **fields):
    """`inputs` and `outputs`: {name: shape}, float32."""
    values = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in part.items()] for part in (inputs, outputs)]
    graph = helper.make_graph(nodes, "graph", *values, list(initializers))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version, **fields)


def batch_norm(prefix, channels):
    return [random(f"{prefix}.{part}", channels, low=0.3 if part == "var" else None) for part in ("scale", "bias", "mean", "var")]


def norm_inputs(prefix):
    return " ".join(f"{prefix}.{part}" for part in ("scale", "bias", "mean", "var"))


def run(proto, feeds):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip([value.name for value in session.get_outputs()], session.run(None, feeds)))


@pytest.fixture
def compress(onnxpress, tmp_path):
    """Compresses a model, compares on every feed, and returns what was written. `inferred`: onnx infers the model's shapes."""

    def call(proto, *feeds, inferred=True):
        onnx.checker.check_model(proto, full_check=inferred)
        source, out = tmp_path / "in.onnx", tmp_path / "out.onnx"
        onnx.save(proto, source)
        onnxpress("compress", source, "-o", out, "--passes", PASSES, "--require-verified")
        written = onnx.load(out)
        onnx.checker.check_model(written, full_check=inferred)
        assert [value.name for value in written.graph.output] == [value.name for value in proto.graph.output]
        assert out.stat().st_size <= source.stat().st_size
        for values in feeds:
            expected, found = run(proto, values), run(written, values)
            for name, reference in expected.items():
                assert (found[name].dtype, found[name].shape) == (reference.dtype, reference.shape)
                assert not reference.size or relative_error(reference, found[name]) < BAR
        return written

    return call


def operators(proto):
    return [item.op_type for item in proto.graph.node]


def x(*shape, seed=1, name="x"):
    return {name: np.random.default_rng(seed).standard_normal(shape).astype(np.float32)}


# Slices


def test_slices_in_a_row_on_different_axes_and_signs(compress):
    """github.com/inisis/OnnxSlim/issues/277: eliminating slices changed the accuracy."""
    indices = [constant(f"i{value}", [value], np.int64) for value in (-6, -1, 0, 1, 2, 3, 100)]
    nodes = [
        node("Slice", "x i1 i100 i2", "a"),  # rows from 1
        node("Slice", "a i0 i-1 i3", "b"),  # all columns but the last
        node("Slice", "b i-6 i3 i2", "c"),  # a start before the first row, on the rows left by `a`
        node("Slice", "c i1 i100 i3 i2", "d"),  # every second
        node("Slice", "a i0 i2 i1", "e"),  # a second reader of a slice in the middle
        node("Slice", "x i-1 i-6 i3 i-1", "f"),  # backwards
    ]
    proto = model(nodes, {"x": [2, 4, 6, 9]}, {"d": None, "e": None, "f": None}, indices)
    compress(shaped(proto), x(2, 4, 6, 9))


def shaped(proto):
    """Gives the outputs the shapes that inference finds."""
    return onnx.shape_inference.infer_shapes(proto, data_prop=True)


@pytest.mark.parametrize("start,end", [(0, 2), (1, 3), (-2, 4), (-3, -1), (2, 100)])
def test_slice_of_a_shape(compress, start, end):
    """github.com/onnx/optimizer/issues/263: a Slice behind Shape became the wrong dims."""
    nodes = [node("Shape", "x", "s"), node("Slice", "s start end axis", "part"), node("Cast", "part", "y", to=TensorProto.FLOAT)]
    indices = [constant("start", [start], np.int64), constant("end", [end], np.int64), constant("axis", [0], np.int64)]
    proto = model(nodes, {"x": ["n", 3, "h", 5]}, {"y": ["k"]}, indices)
    compress(proto, x(2, 3, 4, 5), x(7, 3, 6, 5))


@pytest.mark.parametrize("attributes", [{"start": 2}, {"start": -2}, {"end": 2}, {"start": 1, "end": -1}, {"start": 3, "end": 1}])
def test_shape_with_start_and_end(compress, attributes):
    """github.com/tsingmicro-toolchain/OnnxSlim/issues/38: folding took no notice of start and end."""
    nodes = [node("Shape", "x", "s", **attributes), node("Cast", "s", "y", to=TensorProto.FLOAT)]
    compress(model(nodes, {"x": [2, 3, 4, 5]}, {"y": ["k"]}), x(2, 3, 4, 5))
    compress(model(nodes, {"x": ["n", 3, "h", 5]}, {"y": ["k"]}), x(2, 3, 4, 5), x(1, 3, 9, 5))


# Convolution and batch normalization


@pytest.mark.parametrize("group", [1, 2, 4])
@pytest.mark.parametrize("bias", [False, True])
def test_transposed_convolution_and_batch_norm(compress, group, bias):
    """github.com/onnx/optimizer/pull/106, onnxsim/onnxsim/issues/228, microsoft/onnxscript/issues/2867: its weights have the
    channels of the output on another axis, and groups on both."""
    nodes = [node("ConvTranspose", "x w b" if bias else "x w", "t", group=group, strides=[2, 1]), node("BatchNormalization", f"t {norm_inputs('n')}", "y")]
    initializers = [random("w", 4, 6 // (2 if group == 2 else 1) if group < 4 else 2, 3, 3), *batch_norm("n", {1: 6, 2: 6, 4: 8}[group])]
    if bias:
        initializers.append(random("b", {1: 6, 2: 6, 4: 8}[group]))
    proto = model(nodes, {"x": [2, 4, 5, 5]}, {"y": None}, initializers)
    written = compress(shaped(proto), x(2, 4, 5, 5))
    assert operators(written) == ["ConvTranspose"]


def test_two_convolutions_share_weights_and_one_has_a_norm(compress):
    """Shared initializers (github.com/onnx/optimizer/issues/255 and others): folding into one must not change the other."""
    nodes = [node("Conv", "x w b", "t"), node("BatchNormalization", f"t {norm_inputs('n')}", "y"), node("Conv", "x w b", "z")]
    proto = model(nodes, {"x": [1, 3, 6, 6]}, {"y": None, "z": None}, [random("w", 5, 3, 3, 3), random("b", 5), *batch_norm("n", 5)])
    compress(shaped(proto), x(1, 3, 6, 6))


def test_the_convolution_has_another_reader(compress):
    """github.com/onnx/optimizer/issues/255: the norm's scale went into a result that others read."""
    nodes = [node("Conv", "x w", "t"), node("BatchNormalization", f"t {norm_inputs('n')}", "y"), node("Relu", "t", "z")]
    proto = model(nodes, {"x": [1, 3, 6, 6]}, {"y": None, "z": None, "t": None}, [random("w", 5, 3, 3, 3), *batch_norm("n", 5)])
    compress(shaped(proto), x(1, 3, 6, 6))


@pytest.mark.parametrize("listed", [False, True])
def test_norm_parameters_are_initializers(compress, listed):
    """github.com/onnx/optimizer/issues/133, onnxsim/onnxsim/issues/62 and 76: initializers that are, or are not, inputs too."""
    weights = [random("w", 5, 3, 3, 3), *batch_norm("n", 5)]
    nodes = [node("Conv", "x w", "t"), node("BatchNormalization", f"t {norm_inputs('n')}", "y")]
    proto = model(nodes, {"x": [1, 3, 6, 6]}, {"y": None}, weights, opset=9, ir_version=3 if listed else 4)
    if listed:
        proto.graph.input.extend(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims) for tensor in weights)
    written = compress(shaped(proto), x(1, 3, 6, 6))
    assert operators(written) == ["Conv"]


def test_norms_share_their_statistics(compress):
    """github.com/inisis/OnnxSlim/issues/321: a detector converted from MXNet lost all but its outputs."""
    nodes = [
        node("BatchNormalization", f"x {norm_inputs('n')}", "data"),
        node("Conv", "data w1", "a"), node("BatchNormalization", f"a {norm_inputs('m')}", "b"), node("Relu", "b", "c"),
        node("Conv", "c w2", "d"), node("BatchNormalization", f"d {norm_inputs('m')}", "e"), node("Add", "e c", "f"),
        node("Conv", "f w3", "box"), node("Conv", "f w4", "score"), node("Softmax", "score", "probability", axis=1),
    ]  # fmt: skip
    weights = [random("w1", 8, 3, 1, 1), random("w2", 8, 8, 1, 1), random("w3", 4, 8, 1, 1), random("w4", 2, 8, 1, 1)]
    proto = model(nodes, {"x": ["n", 3, "h", "w"]}, {"box": ["n", 4, "h", "w"], "probability": ["n", 2, "h", "w"]},
                  [*weights, *batch_norm("n", 3), *batch_norm("m", 8)], opset=21, ir_version=10)  # fmt: skip
    written = compress(proto, x(1, 3, 8, 6), x(2, 3, 4, 4))
    assert operators(written).count("Conv") == 4
    assert "BatchNormalization" not in operators(written)[1:]


def test_a_convolution_read_by_a_branch(compress):
    """A value that a subgraph captures has a reader there."""
    branches = {
        name: helper.make_graph([node(operator, "t", f"{name}_out")], name, [],
                                [helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, [1, 5, 4, 4])])
        for name, operator in (("then_branch", "Neg"), ("else_branch", "Abs"))
    }
    nodes = [
        node("Conv", "x w", "t"), node("BatchNormalization", f"t {norm_inputs('n')}", "y"),
        node("ReduceSum", "x", "sum", keepdims=0), node("Greater", "sum zero", "positive"), node("If", "positive", "z", **branches),
    ]  # fmt: skip
    proto = model(nodes, {"x": [1, 3, 6, 6]}, {"y": [1, 5, 4, 4], "z": [1, 5, 4, 4]}, [random("w", 5, 3, 3, 3), constant("zero", 0), *batch_norm("n", 5)])
    compress(proto, {"x": np.ones((1, 3, 6, 6), np.float32)}, {"x": -np.ones((1, 3, 6, 6), np.float32)})


# Interface and names


def test_concats_beside_graph_outputs(compress):
    """github.com/inisis/OnnxSlim/issues/329: outputs lost the nodes that make them."""
    nodes = [
        node("Relu", "x", "a"), node("Concat", "a x", "inner", axis=1), node("Concat", "inner a", "outer", axis=1),
        node("Concat", "a", "single", axis=1), node("Identity", "outer", "copy"), node("Identity", "x", "same"),
    ]  # fmt: skip
    shapes = {"inner": [2, 6], "outer": [2, 9], "single": [2, 3], "copy": [2, 9], "same": [2, 3]}
    written = compress(model(nodes, {"x": [2, 3]}, shapes), x(2, 3))
    assert operators(written).count("Concat") <= 2


def test_shapes_shared_by_reshapes_after_inference(compress):
    """github.com/inisis/OnnxSlim/issues/305: a folded Concat left readers behind."""
    nodes = [
        node("Shape", "x", "s"), node("Gather", "s zero", "n", axis=0), node("Unsqueeze", "n axis", "n1"),
        node("Concat", "n1 two rest", "dims", axis=0),
        node("Reshape", "x dims", "a"), node("Relu", "x", "r"), node("Reshape", "r dims", "b"), node("Neg", "x", "m"), node("Reshape", "m dims", "c"),
        node("Sum", "a b c", "y"),
    ]  # fmt: skip
    indices = [constant("zero", 0, np.int64), constant("axis", [0], np.int64), constant("two", [2], np.int64), constant("rest", [-1], np.int64)]
    for batch in ("n", 4):
        proto = model(nodes, {"x": [batch, 6]}, {"y": [batch, 2, 3]}, indices)
        written = compress(onnx.shape_inference.infer_shapes(proto, data_prop=True), x(4, 6))
        assert "Shape" not in operators(written)


def test_splits_keep_their_outputs(compress):
    """github.com/onnxsim/onnxsim/issues/260: only the input was left; and the sizes of a Split without them."""
    nodes = [node("Split", "x", "a b c", axis=1), node("Mul", "a c", "y")]
    for opset in (11, 13, 17):
        written = compress(model(nodes, {"x": [2, 9]}, {"y": [2, 3]}, opset=opset), x(2, 9))
        assert "Mul" in operators(written)


def test_fixed_dims_do_not_replace_open_ones(compress):
    """github.com/onnxsim/onnxsim/issues/79: the shape of the output changed."""
    nodes = [
        node("Shape", "x", "s"), node("Slice", "s two four axis", "hw"), node("Mul", "hw twice", "size"),
        node("Slice", "s none two axis", "nc"), node("Concat", "nc size", "sizes", axis=0),
        helper.make_node("Resize", ["x", "", "", "sizes"], ["y"], mode="nearest", nearest_mode="floor", coordinate_transformation_mode="asymmetric"),
    ]  # fmt: skip
    numbers = {"two": [2], "four": [4], "axis": [0], "none": [0], "twice": [2, 2]}
    initializers = [constant(name, value, np.int64) for name, value in numbers.items()]
    proto = model(nodes, {"x": [1, 3, "h", "w"]}, {"y": [1, 3, "hh", "ww"]}, initializers)
    written = compress(proto, x(1, 3, 4, 5), x(1, 3, 7, 2))
    assert [dim.dim_param for dim in written.graph.input[0].type.tensor_type.shape.dim[2:]] == ["h", "w"]


def test_names_metadata_and_documentation_stay(compress):
    """github.com/inisis/OnnxSlim/issues/38, onnxsim/onnxsim/issues/428, microsoft/onnxscript/issues/1752: names and texts lost."""
    nodes = [node("Identity", "x", "i"), node("MatMul", "i w", "t"), node("Relu", "t", "y")]
    proto = model(nodes, {"x": [2, 3]}, {"y": [2, 4]}, [random("w", 3, 4)], doc_string="what it is", producer_name="someone")
    helper.set_model_props(proto, {"classes": "a,b", "stride": "32"})
    proto.graph.doc_string = "the graph"
    proto.graph.node[2].doc_string = "the last one"
    written = compress(proto, x(2, 3))
    assert {entry.key: entry.value for entry in written.metadata_props}.items() >= {"classes": "a,b", "stride": "32"}.items()
    assert written.doc_string == "what it is"
    assert written.graph.doc_string == "the graph"
    assert [item.name for item in written.graph.node] == ["MatMul_t", "Relu_y"]
    assert written.graph.node[-1].doc_string == "the last one"


# Folding


def test_folding_does_not_grow_the_file(compress):
    """github.com/onnxsim/onnxsim/issues/309, inisis/OnnxSlim/issues/190: folded fills made the file many times larger."""
    nodes = [
        node("ConstantOfShape", "dims", "fill", value=helper.make_tensor("v", TensorProto.FLOAT, [1], [0.5])),
        node("Tile", "row times", "tiled"), node("Expand", "column dims", "expanded"),
        node("Add", "x fill", "a"), node("Add", "a tiled", "b"), node("Add", "b expanded", "y"),
    ]  # fmt: skip
    initializers = [constant("dims", [300, 200], np.int64), random("row", 1, 200), constant("times", [300, 1], np.int64), random("column", 300, 1)]
    written = compress(model(nodes, {"x": [300, 200]}, {"y": [300, 200]}, initializers), x(300, 200))
    assert written.ByteSize() < 10_000


def test_random_numbers_are_not_constants(onnxpress, tmp_path):
    """github.com/inisis/OnnxSlim/issues/15, onnxsim/onnxsim/issues/118: what a generator gives was folded or merged."""
    nodes = [
        node("RandomUniform", "", "a", shape=[4], dtype=TensorProto.FLOAT), node("RandomUniform", "", "b", shape=[4], dtype=TensorProto.FLOAT),
        node("Sub", "a b", "d"), node("Mul", "d x", "y"),
    ]  # fmt: skip
    proto = model(nodes, {"x": [4]}, {"y": [4]})
    onnx.save(proto, tmp_path / "random.onnx")
    onnxpress("compress", tmp_path / "random.onnx", "-o", tmp_path / "out.onnx", "--passes", PASSES)
    written = onnx.load(tmp_path / "out.onnx")
    assert operators(written).count("RandomUniform") == 2
    assert not np.array_equal(run(written, x(4))["y"], np.zeros(4))


def test_dropout_in_training_mode_stays(onnxpress, tmp_path):
    """github.com/onnx/optimizer/issues/274: a Dropout that drops was removed."""
    nodes = [node("Dropout", "x ratio training", "y mask")]
    proto = model(nodes, {"x": [64]}, {"y": [64]}, [constant("ratio", 0.5), constant("training", True, np.bool_)])
    onnx.save(proto, tmp_path / "in.onnx")
    onnxpress("compress", tmp_path / "in.onnx", "-o", tmp_path / "out.onnx", "--passes", PASSES)
    assert operators(onnx.load(tmp_path / "out.onnx")) == ["Dropout"]


@pytest.mark.parametrize("chain", [("FLOAT16", "FLOAT"), ("INT32", "FLOAT"), ("BOOL", "FLOAT"), ("DOUBLE", "FLOAT"), ("DOUBLE", "FLOAT16", "FLOAT")])
def test_casts_that_lose_something_stay(compress, chain):
    """github.com/onnx/optimizer/issues/273: a pair of casts is not nothing when the middle type holds less."""
    names = ["x", *(f"c{i}" for i in range(len(chain) - 1)), "y"]
    nodes = [node("Cast", a, b, to=TensorProto.DataType.Value(kind)) for a, b, kind in zip(names, names[1:], chain)]
    compress(model(nodes, {"x": [50]}, {"y": [50]}), {"x": (x(50)["x"] * 3).astype(np.float32)})


@pytest.mark.parametrize("operator,value,shape", [("Add", 0.0, [2, 1, 3]), ("Mul", 1.0, [5, 1, 1]), ("Sub", 0.0, [4, 2, 3]), ("Div", 1.0, [1, 1, 1, 1])])
def test_units_that_broadcast_stay(compress, operator, value, shape):
    """github.com/onnx/optimizer/issues/285: x + 0 is not x where the zeros have more dims than x."""
    for dims in ([1, 3], [2, 3]):
        proto = model([node(operator, "x c", "t"), node("Relu", "t", "y")], {"x": dims}, {"y": None}, [constant("c", np.full(shape, value))])
        compress(shaped(proto), x(*dims))


def test_sum_with_a_matrix_is_no_bias(compress):
    """github.com/onnxsim/onnxsim/issues/50: MatMul + Add became a Gemm that adds something else."""
    for shape in ([4, 5], [4, 1], [1, 5], [5], [1], [], [2, 4, 5]):
        proto = model([node("MatMul", "x w", "t"), node("Add", "c t", "y")], {"x": [4, 3]}, {"y": None}, [random("w", 3, 5), random("c", *shape)])
        compress(shaped(proto), x(4, 3))


def test_sparse_initializers_stay(compress):
    """github.com/onnx/optimizer/issues/5: they were lost."""
    sparse = helper.make_sparse_tensor(constant("w", [1.5, -2.0, 0.5]), constant("indices", [1, 4, 11], np.int64), [3, 4])
    proto = model([node("Identity", "x", "i"), node("MatMul", "i w", "y")], {"x": [2, 3]}, {"y": [2, 4]})
    proto.graph.sparse_initializer.append(sparse)
    compress(proto, x(2, 3), inferred=False)
