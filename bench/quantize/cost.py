"""What quantizing costs, in time and in memory, beside onnxruntime.quantization: every call is a new process, one after
another on the same CPUs.

    cost.py [CASE ...] [--onnxpress build/onnxpress] [--models build/bench-models] [--rounds 3] [--json FILE]

Cases: resnet18 (static, entropy, 64, 256 and 1,024 samples), resnet50 (256 samples), bert (dynamic, int8 per channel) and
bert4 (weights only, 4 bits, blocks of 32). Ours is the whole command, reading, verifying and writing included; theirs is the
one call of quantize_static, quantize_dynamic or MatMulNBitsQuantizer.process with its saving, without imports; a model that
it wants prepared (quant_pre_process) is prepared beforehand and that time is not counted. PyTorch, where there is one, is
hidden from it: onnxruntime.tools would import it, for a second and a half and 200 MB.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import zipfile

import numpy as np

MEASURE = """
import json, os, sys, time
start = time.monotonic()
child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(child, 0)
with open(3, "w") as result:
    json.dump([os.waitstatus_to_exitcode(status), time.monotonic() - start, usage.ru_maxrss * 1024], result)
"""
"""A process inherits the peak memory of the one that started it, so a small one starts the program."""

PEER = """
import sys
sys.modules["torch"] = None
import json, time
import numpy as np
import onnx
from onnxruntime import quantization as q

model, out, data, case = sys.argv[1:]

class Reader(q.CalibrationDataReader):
    def __init__(self):
        self.rows = np.load(data, mmap_mode="r")
        self.at = 0
    def get_next(self):
        if self.at == len(self.rows):
            return None
        self.at += 1
        return {"input": np.ascontiguousarray(self.rows[self.at - 1 : self.at])}

def run():
    if case == "static":
        q.quantize_static(model, out, Reader(), quant_format=q.QuantFormat.QDQ, per_channel=True,
                          activation_type=q.QuantType.QUInt8, weight_type=q.QuantType.QInt8,
                          calibrate_method=q.CalibrationMethod.Entropy)
    elif case == "dynamic":
        q.quantize_dynamic(model, out, per_channel=True, weight_type=q.QuantType.QInt8)
    else:
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
        quantizer = MatMulNBitsQuantizer(onnx.load(model), block_size=32, is_symmetric=True)
        quantizer.process()
        quantizer.model.save_model_to_file(out, False)

start = time.monotonic()
run()
print(json.dumps({"seconds": time.monotonic() - start}))
"""

PREPARE = """
import sys
sys.modules["torch"] = None
from onnxruntime.quantization.shape_inference import quant_pre_process
quant_pre_process(sys.argv[1], sys.argv[2], skip_symbolic_shape=True)
"""


def call(command, limit=3600):
    """(status, seconds, peak bytes, standard output, standard error) of a process of its own."""
    os.sync()  # a program that syncs what it wrote would wait for what others left behind
    read, write = os.pipe()
    os.set_inheritable(write, True)
    ran = subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" 3>&{write}', "sh", sys.executable, "-I", "-S", "-c", MEASURE, *map(str, command)],
        capture_output=True, text=True, errors="replace", pass_fds=(write,), timeout=limit, check=False)
    os.close(write)
    with open(read, encoding="ascii") as pipe:
        measured = pipe.read()
    if not measured:
        return ran.returncode, 0.0, 0, ran.stdout, ran.stderr
    status, seconds, peak = json.loads(measured)
    return status, seconds, peak, ran.stdout, ran.stderr


def make_samples(folder, count):
    """Seeded images as one array `input` in an uncompressed .npz, and the same as .npy for the peer."""
    random = np.random.default_rng(7)
    array = folder / f"input{count}.npy"
    images = np.lib.format.open_memmap(array, mode="w+", dtype=np.float32, shape=(count, 3, 224, 224))
    for i in range(count):
        images[i] = random.standard_normal((3, 224, 224), dtype=np.float32)
    images.flush()
    del images
    archive = folder / f"samples{count}.npz"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        file.write(array, "input.npy")
    return archive, array


STATIC = "simplify,fuse,quantize{scheme=static,calibration=entropy}"
DYNAMIC = "quantize{scheme=dynamic}"
NBITS = "quantize{scheme=weights,bits=4,granularity=block,block=32,form=contrib}"


class Case:
    def __init__(self, name, model, passes, peer, samples=0, time_ratio=None, peak=None, with_peer=True):
        self.name, self.model, self.passes, self.peer = name, model, passes, peer
        self.samples, self.time_ratio, self.peak, self.with_peer = samples, time_ratio, peak, with_peer


CASES = {
    "resnet18": [
        Case("resnet18, 256 samples", "resnet18", STATIC, "static", 256, 1 / 4, 400e6),
        Case("resnet18, 64 samples", "resnet18", STATIC, "static", 64, None, 400e6, False),
        Case("resnet18, 1024 samples", "resnet18", STATIC, "static", 1024, None, 400e6, False),
    ],
    "resnet50": [Case("resnet50, 256 samples", "resnet50", STATIC, "static", 256, None, 600e6, False)],
    "bert": [Case("bert_base, dynamic", "bert_base", DYNAMIC, "dynamic", 0, 1 / 10, 500e6)],
    "bert4": [Case("bert_base, 4 bits", "bert_base", NBITS, "nbits", 0, 1 / 2, 350e6)],
}


def run_ours(case, arguments, folder, samples):
    out = folder / "ours.onnx"
    command = [arguments.onnxpress, "compress", arguments.models / f"{case.model}.onnx", "-o", out, "--passes", case.passes,
               "--quiet"]
    if case.samples:
        command += ["--calib", samples[case.samples][0]]
    status, seconds, peak, _, err = call(command)
    if status != 0 or not out.exists():
        sys.exit(f"{case.name}: onnxpress ended with status {status}: {err.strip()}")
    return seconds, peak, out.stat().st_size


def run_peer(case, model, folder, samples):
    out = folder / "theirs.onnx"
    data = samples[case.samples][1] if case.samples else ""
    status, _, peak, said, err = call([sys.executable, "-c", PEER, model, out, data, case.peer])
    if status != 0:
        return None, peak, err.strip().splitlines()[-1] if err.strip() else f"status {status}"
    return json.loads(said.splitlines()[-1])["seconds"], peak, out.stat().st_size


def prepared(case, arguments, folder):
    model = arguments.models / f"{case.model}.onnx"
    if case.peer != "static":
        return model
    out = folder / f"{case.model}_prepared.onnx"
    if not out.exists():
        status, _, _, _, err = call([sys.executable, "-c", PREPARE, model, out])
        if status != 0:
            sys.exit(f"quant_pre_process: {err}")
    return out


def megabytes(size):
    return f"{size / 1e6:.0f} MB"


def measure(case, arguments, folder, samples):
    ours, theirs = [], []
    for _ in range(arguments.rounds):  # in turns: the machine's mood changes
        ours.append(run_ours(case, arguments, folder, samples))
        if case.with_peer:
            theirs.append(run_peer(case, prepared(case, arguments, folder), folder, samples))
    result = {"case": case.name, "seconds": statistics.median(run[0] for run in ours), "peak": max(run[1] for run in ours),
              "bytes": ours[0][2]}
    line = f"{case.name:<24} {result['seconds']:7.2f} s {megabytes(result['peak']):>8}"
    good = [run for run in theirs if run[0] is not None]
    if good:
        result["peer_seconds"] = statistics.median(run[0] for run in good)
        result["peer_peak"] = max(run[1] for run in good)
        result["ratio"] = result["seconds"] / result["peer_seconds"]
        line += f"   theirs {result['peer_seconds']:7.2f} s {megabytes(result['peer_peak']):>8}   time ratio {result['ratio']:.3f}"
    elif theirs:
        result["peer_failure"] = theirs[0][2]
        line += f"   theirs: {theirs[0][2]}"
    met = []
    if case.time_ratio and "ratio" in result:
        met.append((f"time at most {case.time_ratio:.2f}", result["ratio"] <= case.time_ratio))
    if case.peak:
        met.append((f"peak at most {megabytes(case.peak)}", result["peak"] <= case.peak))
    for text, is_met in met:
        line += f"   {text}: {'met' if is_met else 'MISSED'}"
    print(line, flush=True)
    result["bars"] = dict(met)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", choices=[*CASES, []])
    parser.add_argument("--onnxpress", type=pathlib.Path, default=pathlib.Path("build/onnxpress"))
    parser.add_argument("--models", type=pathlib.Path, default=pathlib.Path("build/bench-models"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-peer", action="store_true", help="measure ours alone")
    parser.add_argument("--json", type=pathlib.Path)
    arguments = parser.parse_args()
    arguments.onnxpress = arguments.onnxpress.resolve()
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        samples = {}
        for key in arguments.cases or CASES:
            for case in CASES[key]:
                if case.samples and case.samples not in samples:
                    samples[case.samples] = make_samples(folder, case.samples)
                case.with_peer = case.with_peer and not arguments.no_peer
                results.append(measure(case, arguments, folder, samples))
    peaks = [result["peak"] for result in results if result["case"].startswith("resnet18")]
    if len(peaks) > 1:
        print(f"resnet18: peak memory of the largest number of samples over the smallest's: {max(peaks) / min(peaks):.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return 0 if all(met for result in results for met in result["bars"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
