"""Static 8-bit quantization by onnxruntime.quantization, in QDQ form.

    python -m maker.quantize IN OUT       from the folder bench/

uint8 activations, int8 weights per channel, after its own preprocessing; four random samples calibrate. Runs in a process
of its own, for which PyTorch does not exist: onnxruntime's tools would import it for nothing.
"""

import pathlib
import sys
import tempfile

sys.modules["torch"] = None

import numpy as np  # noqa: E402
import onnx  # noqa: E402
from onnx import version_converter  # noqa: E402
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static  # noqa: E402
from onnxruntime.quantization.shape_inference import quant_pre_process  # noqa: E402

PER_CHANNEL_OPSET = 13
SAMPLES = 4


class RandomSamples(CalibrationDataReader):
    """Standard normal values for the only input; an open batch is 1."""

    def __init__(self, model):
        random = np.random.default_rng(1)
        (value,) = model.graph.input
        dims = [d.dim_value or 1 for d in value.type.tensor_type.shape.dim]
        self.samples = iter([{value.name: random.standard_normal(dims, dtype=np.float32)} for _ in range(SAMPLES)])

    def get_next(self):
        return next(self.samples, None)


def main():
    source, target = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        prepared = pathlib.Path(folder) / "prepared.onnx"
        model = onnx.load(source)
        if model.opset_import[0].version < PER_CHANNEL_OPSET:
            model = version_converter.convert_version(model, PER_CHANNEL_OPSET)
        onnx.save(model, prepared)
        quant_pre_process(prepared, prepared)
        quantize_static(
            prepared, target, RandomSamples(onnx.load(prepared)), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        )  # fmt: skip


if __name__ == "__main__":
    main()
