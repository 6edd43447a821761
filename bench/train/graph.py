"""An ONNX graph as a PyTorch module: every node by the function of PyTorch that computes it."""

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import numpy_helper


def attributes(node: onnx.NodeProto) -> dict:
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def pads_of(attrs: dict, rank: int) -> list[int]:
    """The same padding on both sides, as PyTorch takes it."""
    pads = attrs.get("pads", [0] * 2 * rank)
    assert pads[:rank] == pads[rank:], "uneven padding"
    return pads[:rank]


class GraphModule(torch.nn.Module):
    """Runs an ONNX model. Its parameters are the initializers that `trained` names; BatchNormalization computes the
    statistics of the batch while the module is in training mode."""

    def __init__(self, path, trained: list[str], dtype=torch.float32):
        super().__init__()
        self.model = onnx.load(path)
        self.dtype = dtype
        self.constants, self.names = {}, {}
        for initializer in self.model.graph.initializer:
            tensor = self.as_tensor(numpy_helper.to_array(initializer))
            if initializer.name in trained:
                self.names[initializer.name] = f"p{len(self.names)}"
                self.register_parameter(self.names[initializer.name], torch.nn.Parameter(tensor))
            else:
                self.constants[initializer.name] = tensor

    def as_tensor(self, array: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(np.array(array))
        return tensor.to(self.dtype) if tensor.is_floating_point() else tensor

    def forward(self, **inputs) -> dict[str, torch.Tensor]:
        values = dict(self.constants)
        values.update({name: getattr(self, parameter) for name, parameter in self.names.items()})
        values.update(inputs)
        for node in self.model.graph.node:
            arguments = [values[name] if name else None for name in node.input]
            results = getattr(self, "op_" + node.op_type)(attributes(node), *arguments)
            if not isinstance(results, tuple):
                results = (results,)
            values.update(zip(node.output, results))
        return values

    # --- operators ---

    def op_Constant(self, a):
        return self.as_tensor(numpy_helper.to_array(a["value"]))

    def op_ConstantOfShape(self, a, shape):
        value = numpy_helper.to_array(a["value"]) if "value" in a else np.zeros(1, np.float32)
        return torch.full(shape.tolist(), float(value[0]) if value.dtype.kind == "f" else int(value[0])).to(
            self.dtype if value.dtype.kind == "f" else torch.int64)

    def op_Identity(self, a, x):
        return x

    def op_Cast(self, a, x):
        kinds = {1: self.dtype, 6: torch.int32, 7: torch.int64, 9: torch.bool, 11: torch.float64}
        return x.to(kinds[a["to"]])

    def op_Conv(self, a, x, w, b=None):
        rank = w.dim() - 2
        run = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[rank]
        return run(x, w, b, a.get("strides", [1] * rank), pads_of(a, rank), a.get("dilations", [1] * rank),
                   a.get("group", 1))

    def op_ConvTranspose(self, a, x, w, b=None):
        rank = w.dim() - 2
        run = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}[rank]
        return run(x, w, b, a.get("strides", [1] * rank), pads_of(a, rank), a.get("output_padding", [0] * rank),
                   a.get("group", 1), a.get("dilations", [1] * rank))

    def op_BatchNormalization(self, a, x, scale, bias, mean, variance):
        if self.training:
            return F.batch_norm(x, None, None, scale, bias, True, 0.1, a.get("epsilon", 1e-5))
        return F.batch_norm(x, mean, variance, scale, bias, False, 0.1, a.get("epsilon", 1e-5))

    def op_MaxPool(self, a, x):
        rank = len(a["kernel_shape"])
        return {1: F.max_pool1d, 2: F.max_pool2d}[rank](x, a["kernel_shape"], a.get("strides"), pads_of(a, rank))

    def op_AveragePool(self, a, x):
        return F.avg_pool2d(x, a["kernel_shape"], a.get("strides"), pads_of(a, 2))

    def op_GlobalAveragePool(self, a, x):
        return x.mean(dim=tuple(range(2, x.dim())), keepdim=True)

    def op_Gemm(self, a, x, w, b=None):
        x = x.t() if a.get("transA") else x
        w = w.t() if a.get("transB") else w
        y = a.get("alpha", 1.0) * (x @ w) if a.get("alpha", 1.0) != 1.0 else None
        if y is None:
            return x @ w if b is None else torch.addmm(b, x, w) if a.get("beta", 1.0) == 1.0 else x @ w + a["beta"] * b
        return y if b is None else y + a.get("beta", 1.0) * b

    def op_MatMul(self, a, x, w):
        return x @ w

    def op_Relu(self, a, x):
        return F.relu(x)

    def op_LeakyRelu(self, a, x):
        return F.leaky_relu(x, a.get("alpha", 0.01))

    def op_Sigmoid(self, a, x):
        return torch.sigmoid(x)

    def op_Tanh(self, a, x):
        return torch.tanh(x)

    def op_Erf(self, a, x):
        return torch.erf(x)

    def op_Gelu(self, a, x):
        return F.gelu(x, approximate=a.get("approximate", b"none").decode())

    def op_Sqrt(self, a, x):
        return torch.sqrt(x)

    def op_Clip(self, a, x, low=None, high=None):
        return torch.clamp(x, low, high)

    def op_Softmax(self, a, x):
        return torch.softmax(x, a.get("axis", -1))

    def op_LogSoftmax(self, a, x):
        return torch.log_softmax(x, a.get("axis", -1))

    def op_Add(self, a, x, y):
        return x + y

    def op_Sub(self, a, x, y):
        return x - y

    def op_Mul(self, a, x, y):
        return x * y

    def op_Div(self, a, x, y):
        return x / y if x.is_floating_point() else x // y

    def op_Pow(self, a, x, y):
        return torch.pow(x, y)

    def op_ReduceMean(self, a, x, axes=None):
        axes = a.get("axes") if axes is None else axes.tolist()
        return x.mean(dim=axes, keepdim=bool(a.get("keepdims", 1)))

    def op_LayerNormalization(self, a, x, scale, bias=None):
        axis = a.get("axis", -1) % x.dim()
        return F.layer_norm(x, x.shape[axis:], scale, bias, a.get("epsilon", 1e-5))

    def op_Shape(self, a, x):
        return torch.tensor(list(x.shape)[a.get("start", 0):a.get("end")], dtype=torch.int64)

    def op_Reshape(self, a, x, shape):
        wanted = [x.shape[i] if size == 0 else size for i, size in enumerate(shape.tolist())]
        return x.reshape(wanted)

    def op_Flatten(self, a, x):
        axis = a.get("axis", 1)
        return x.reshape(int(np.prod(x.shape[:axis])), -1)

    def op_Transpose(self, a, x):
        return x.permute(a.get("perm", list(range(x.dim()))[::-1]))

    def op_Squeeze(self, a, x, axes=None):
        axes = a.get("axes") if axes is None else axes.tolist()
        return x.squeeze() if axes is None else x.squeeze(tuple(axes))

    def op_Unsqueeze(self, a, x, axes=None):
        axes = a.get("axes") if axes is None else axes.tolist()
        for axis in sorted(axis % (x.dim() + len(axes)) for axis in axes):
            x = x.unsqueeze(axis)
        return x

    def op_Concat(self, a, *parts):
        return torch.cat(parts, a["axis"])

    def op_Gather(self, a, x, indices):
        axis = a.get("axis", 0)
        if indices.dim() == 0:
            return x.select(axis, int(indices))
        if axis == 0 and x.dim() == 2:
            return F.embedding(indices, x)
        return torch.index_select(x, axis, indices.reshape(-1)).reshape(
            *x.shape[:axis], *indices.shape, *x.shape[axis + 1:])

    def op_Slice(self, a, x, starts, ends, axes=None, steps=None):
        axes = list(range(len(starts))) if axes is None else axes.tolist()
        steps = [1] * len(axes) if steps is None else steps.tolist()
        index = [slice(None)] * x.dim()
        for axis, start, end, step in zip(axes, starts.tolist(), ends.tolist(), steps):
            index[axis] = slice(start, min(end, x.shape[axis]) if end >= 0 else end, step)
        return x[tuple(index)]

    def op_Range(self, a, start, stop, step):
        return torch.arange(start.item(), stop.item(), step.item())

    def recurrent(self, kind, a, x, w, r, b, h, c=None):
        """Gates in ONNX's order are put into PyTorch's."""
        hidden, directions = a["hidden_size"], w.shape[0]
        order = {"LSTM": [0, 2, 3, 1], "GRU": [1, 0, 2]}[kind]  # iofc to ifgo, zrh to rzn
        pick = lambda t: torch.cat([t.split(hidden)[i] for i in order])
        weights = []
        for d in range(directions):
            wb, rb = b[d].chunk(2)
            weights += [pick(w[d]), pick(r[d]), pick(wb), pick(rb)]
        zeros = x.new_zeros(directions, x.shape[1], hidden)
        h = zeros if h is None else h
        if kind == "LSTM":
            y, hn, cn = torch.lstm(x, (h, zeros if c is None else c), weights, True, 1, 0.0, self.training,
                                   directions == 2, False)
            states = (hn, cn)
        else:
            assert a.get("linear_before_reset") == 1
            y, hn = torch.gru(x, h, weights, True, 1, 0.0, self.training, directions == 2, False)
            states = (hn,)
        steps, batch = x.shape[:2]
        return (y.reshape(steps, batch, directions, hidden).permute(0, 2, 1, 3), *states)

    def op_LSTM(self, a, x, w, r, b, lengths=None, h=None, c=None):
        return self.recurrent("LSTM", a, x, w, r, b, h, c)

    def op_GRU(self, a, x, w, r, b, lengths=None, h=None):
        return self.recurrent("GRU", a, x, w, r, b, h)
