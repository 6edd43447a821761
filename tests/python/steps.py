"""Two engines compared step by step: what each makes of the same codes.

Engines add in different orders, so a value half way between two codes may be rounded to either. Run through a whole
model such a difference makes others; here every step starts from the same codes, and the bound is one quantum."""

import fnmatch
import pathlib

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

PLAIN = (TensorProto.INT8, TensorProto.UINT8, TensorProto.INT16, TensorProto.UINT16)
"""Types of codes that both engines take and give as they are; others travel as float32, which holds their numbers."""


def session(path, as_written=False):
    """`as_written`: every node by itself; else as ONNX Runtime fuses them."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if as_written:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def has_vnni():
    """Whether the processor sums products of 8-bit codes without saturation."""
    return "vnni" in pathlib.Path("/proc/cpuinfo").read_text(encoding="ascii")


def largest_code(path):
    """The largest magnitude of signed 8-bit constants."""
    arrays = [onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer]
    return max((int(np.abs(a.astype(np.int64)).max()) for a in arrays if a.dtype == np.int8 and a.size), default=0)


def rename_inputs(graph, names):
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                rename_inputs(attribute.g, names)


class Steps:
    """A model cut at the codes that QuantizeLinear makes in its main graph: a step's outputs, the next one's inputs."""

    def __init__(self, path):
        model = onnx.load(path)
        types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
        makers = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
        self.types = {node.output[0]: types[node.input[2]] for node in makers}
        whole = onnx.ModelProto()
        whole.CopyFrom(model)
        self.outputs = [self.expose(whole.graph, name) for name in self.types]
        self.whole = self.saved(whole, path.with_name("whole.onnx"))
        given = {name: f"{name}_given" for name in self.types}
        rename_inputs(model.graph, given)
        for name in self.types:
            self.expose(model.graph, name)
        self.entries = {}  # input of the next step by output of the one before
        for exposed, (name, kind) in zip(self.outputs, self.types.items()):
            plain = kind in PLAIN
            self.entries[exposed] = entry = given[name] if plain else f"{given[name]}_float"
            model.graph.input.append(helper.make_tensor_value_info(entry, kind if plain else TensorProto.FLOAT, None))
            if not plain:
                model.graph.node.insert(0, helper.make_node("Cast", [entry], [given[name]], to=kind))
        self.model, self.cut = model, path.with_name("cut.onnx")

    def expose(self, graph, name):
        """Makes the codes an output; returns its name."""
        if self.types[name] in PLAIN:
            graph.output.append(helper.make_tensor_value_info(name, self.types[name], None))
            return name
        graph.node.append(helper.make_node("Cast", [name], [f"{name}_float_codes"], to=TensorProto.FLOAT))
        graph.output.append(helper.make_tensor_value_info(f"{name}_float_codes", TensorProto.FLOAT, None))
        return f"{name}_float_codes"

    @staticmethod
    def saved(model, path):
        del model.graph.value_info[:]
        onnx.save(model, path)
        return path

    def quanta(self, name, expected, found):
        """How many codes apart, elementwise."""
        kind = dict(zip(self.outputs, self.types.values()))[name]
        if kind in (TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E5M2):
            steps = all_numbers(kind)
            return np.abs(np.searchsorted(steps, expected) - np.searchsorted(steps, found))
        return np.abs(expected.astype(np.int64) - found.astype(np.int64))

    def compare(self, onnxpress, feeds, as_written, most=1):
        """Asserts that all codes are at most `most` apart; returns how many tensors of codes were compared."""
        reference = session(self.whole, as_written=True)
        codes = dict(zip(self.outputs, reference.run(self.outputs, feeds)))
        fed = {**feeds, **{entry: codes[name] for name, entry in self.entries.items()}}
        for entry in self.model.graph.input:  # all of one size
            kind = entry.type.tensor_type.elem_type
            entry.CopyFrom(helper.make_tensor_value_info(entry.name, kind, fed[entry.name].shape))
        runtime = session(self.saved(self.model, self.cut), as_written)
        read = {entry.name: fed[entry.name] for entry in runtime.get_inputs()}
        expected = dict(zip(self.outputs, runtime.run(self.outputs, read)))
        data = self.cut.with_name("feeds")
        data.mkdir(exist_ok=True)
        for i, entry in enumerate(self.model.graph.input):
            onnx.save_tensor(onnx.numpy_helper.from_array(fed[entry.name], entry.name), data / f"input_{i}.pb")
        onnxpress("run", self.cut, "--input", data, "-o", self.cut.with_name("ours.npz"))
        found = np.load(self.cut.with_name("ours.npz"))
        for name in self.outputs:
            apart = self.quanta(name, expected[name], found[name])
            assert apart.max(initial=0) <= most, f"{name}: {apart.max()} quanta apart, {np.mean(apart > 0):.2%} differ"
        return len(self.outputs)


def all_numbers(kind):
    """The finite numbers of a type of 8 bits, in order."""
    bits = np.arange(256, dtype=np.uint8).view(helper.tensor_dtype_to_np_dtype(kind)).astype(np.float32)
    return np.unique(bits[np.isfinite(bits)])


class Manifest:
    """Lines 'case: reason' (* and ? as in a shell) of what ONNX Runtime's CPU provider does not run."""

    def __init__(self, path):
        lines = [line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
        self.reasons = dict(line.split(": ", 1) for line in lines if line)

    def reason(self, case):
        return next((reason for pattern, reason in self.reasons.items() if fnmatch.fnmatchcase(case, pattern)), None)

    def unused(self, cases):
        return [pattern for pattern in self.reasons if not any(fnmatch.fnmatchcase(case, pattern) for case in cases)]


WITHOUT_KERNELS = Manifest(pathlib.Path(__file__).with_name("runtime_without_kernels.txt"))
