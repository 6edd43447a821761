"""How fast ONNX Runtime runs our int8 output and its own quantizer's; prints Markdown.

    speed.py --onnxpress build/onnxpress [--models build/bench-models] [--only NAME ...] [--samples 32] [--turns 15]
             [--threads 1] [--passes simplify,fuse,quantize]

Per model (resnet18, resnet50, cifar_cnn and mlp of bench/make_models.py): the float model, ours with default options, and what
onnxruntime.quantization.quantize_static makes after quant_pre_process with uint8 and with int8 activations (weights int8 per
channel, min-max), of the same calibration samples. All sessions are measured in turns in this one process, batch 1 and 8; a cell
is the median of the ratios to the float model's time of the same turn. Beside them: the output's SNR against the float model in
ONNX Runtime on samples not calibrated with, and the operators that ONNX Runtime's optimizer leaves.

Calibration samples are normal random numbers filtered to look smooth (the models' weights are random too), the same for both.
The exit status is 1 when ours is below 0.97 of the fastest peer, or below 2.5 times the float model on a resnet.
"""

import argparse
import collections
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

sys.modules["torch"] = None  # onnxruntime's tools import it when they can, which costs seconds

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

MODELS = ("resnet18", "resnet50", "cifar_cnn", "mlp")
PEERS = {"peer, uint8": QuantType.QUInt8, "peer, int8": QuantType.QInt8}
LEAST_OF_PEER, LEAST_OF_FLOAT = 0.97, 2.5


class Samples(CalibrationDataReader):
    """Hands out samples one by one."""

    def __init__(self, name, array):
        self.feeds = iter([{name: array[i : i + 1]} for i in range(len(array))])

    def get_next(self):
        return next(self.feeds, None)


def make_samples(shape, count, seed):
    """Noise, images of it smoothed along both axes."""
    values = np.random.default_rng(seed).standard_normal((count, *shape)).astype(np.float32)
    if len(shape) == 3:
        for axis in (-1, -2):
            values = (values + np.roll(values, 1, axis) + np.roll(values, -1, axis)) / np.float32(np.sqrt(3))
    return values


def session(path, threads, optimized=None):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if optimized:
        options.optimized_model_filepath = str(optimized)
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def operators(path, folder):
    """What is left after ONNX Runtime's optimizations, by operator."""
    optimized = folder / "optimized.onnx"
    session(path, 1, optimized)
    counts = collections.Counter(node.op_type for node in onnx.load(optimized).graph.node)
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))


def snr(expected, found):
    noise = np.square(expected - found).sum()
    return float(10 * np.log10(np.square(expected).sum() / noise)) if noise else float("inf")


def measure(sessions, feed, turns):
    """Seconds of one run of each, per turn."""
    seconds = {name: [] for name in sessions}
    for each in sessions.values():
        each.run(None, feed)
    for _ in range(turns):
        for name, each in sessions.items():
            repeats, start = 0, time.perf_counter()
            while repeats < 2 or time.perf_counter() - start < 0.05:
                each.run(None, feed)
                repeats += 1
            seconds[name].append((time.perf_counter() - start) / repeats)
    return seconds


def compare(name, arguments, folder):
    source = arguments.models / f"{name}.onnx"
    reference = session(source, arguments.threads)
    entry = reference.get_inputs()[0]
    shape = [dim if isinstance(dim, int) else {1: 3}.get(i, 224) for i, dim in enumerate(entry.shape)][1:]
    calibration = make_samples(shape, arguments.samples, 1)
    np.savez(folder / "calibration.npz", **{entry.name: calibration})

    paths = {"float": source, "ours": folder / "ours.onnx"}
    subprocess.run(
        [arguments.onnxpress, "compress", source, "-o", paths["ours"], "--passes", arguments.passes,
         "--calib", folder / "calibration.npz", "--quiet"],
        check=True,
    )
    quant_pre_process(str(source), str(folder / "prepared.onnx"), skip_symbolic_shape=True)
    for peer, activations in PEERS.items():
        paths[peer] = folder / f"{peer.replace(', ', '_')}.onnx"
        quantize_static(
            str(folder / "prepared.onnx"), str(paths[peer]), Samples(entry.name, calibration), quant_format=QuantFormat.QDQ,
            per_channel=True, activation_type=activations, weight_type=QuantType.QInt8,
        )
    sessions = {tool: session(path, arguments.threads) for tool, path in paths.items()}
    held_out = {entry.name: make_samples(shape, 8, 2)}
    expected = sessions["float"].run(None, held_out)[0]
    speedups = {tool: [] for tool in paths}
    for batch in (1, 8):
        feed = {entry.name: held_out[entry.name][:batch]}
        seconds = measure(sessions, feed, arguments.turns)
        for tool in paths:
            speedups[tool].append(statistics.median(f / s for f, s in zip(seconds["float"], seconds[tool])))
    for tool, path in paths.items():
        print(
            f"| {name} | {tool} | {path.stat().st_size / 1e6:.2f} | "
            + " | ".join(f"{value:.2f}" for value in speedups[tool])
            + f" | {snr(expected, sessions[tool].run(None, held_out)[0]):.1f} | {operators(path, folder)} |",
            flush=True,
        )
    missed = []
    for i, batch in enumerate((1, 8)):
        best = max(speedups[peer][i] for peer in PEERS)
        if speedups["ours"][i] < LEAST_OF_PEER * best:
            missed.append(f"{name}, batch {batch}: {speedups['ours'][i] / best:.3f} of the peer's speed")
        if name.startswith("resnet") and speedups["ours"][i] < LEAST_OF_FLOAT:
            missed.append(f"{name}, batch {batch}: {speedups['ours'][i]:.2f} times the float model's speed")
    return missed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--onnxpress", required=True, type=pathlib.Path)
    parser.add_argument("--models", default=pathlib.Path("build/bench-models"), type=pathlib.Path)
    parser.add_argument("--only", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--samples", default=32, type=int)
    parser.add_argument("--turns", default=15, type=int)
    parser.add_argument("--threads", default=1, type=int)
    parser.add_argument("--passes", default="simplify,fuse,quantize")
    arguments = parser.parse_args()
    print("| model | by | MB | speed, batch 1 | speed, batch 8 | SNR, dB | operators left by ONNX Runtime |")
    print("|---|---|---|---|---|---|---|")
    missed = []
    for name in arguments.only:
        with tempfile.TemporaryDirectory() as folder:
            missed += compare(name, arguments, pathlib.Path(folder))
    for line in missed:
        print(f"\nbelow the bar: {line}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
