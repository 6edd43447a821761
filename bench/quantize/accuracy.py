"""What int8 costs in accuracy, beside onnxruntime.quantization: the same model, calibration samples and settings.

    accuracy.py [NAME ...] [--onnxpress build/onnxpress] [--models build/bench-models] [--judge emulated|fused]
                [--json FILE]

Ours is `simplify,fuse,quantize` with default options (weights int8 symmetric per channel, activations uint8); theirs is
quantize_static after quant_pre_process with the same types, per channel (per tensor where it cannot), by MinMax,
Entropy and Percentile. Its quantizer leaves LSTM, GRU and RNN in float, so there ours does the same; rows named '...,
dynamic' compare scheme=dynamic with quantize_dynamic, recurrent weights included.

Both are judged in ONNX Runtime on samples apart from those of calibration:
- output SNR: signal over noise, the noise's share of every float output averaged over the outputs;
- accuracy where there are labels, and McNemar's exact test (two-sided) on the samples that one of the two alone has
  right, against the most accurate of theirs; else, for class scores, agreement with the float model's top-1.

`emulated` keeps QuantizeLinear and DequantizeLinear around float operators: what the numbers in the file mean. `fused`
lets ONNX Runtime use its integer kernels; without VNNI these saturate (pairs of u8 x s8 in 16 bits), so that both sides
then get weights of 7 bits (target ort-cpu-avx2, reduce_range). Dynamic models have integer kernels only and are judged
so.

'worse': SNR more than 0.2 dB below the best of theirs, accuracy below the best of theirs at p <= 0.05, or on MNIST more
than 0.1 point below the float model's. The exit status is 1 when there is one."""

import argparse
import contextlib
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import traceback

sys.modules["torch"] = None  # onnxruntime's tools import it when they can, which costs seconds

import numpy as np
import onnx
import samples
from onnxruntime import quantization

ROOT = pathlib.Path(__file__).resolve().parents[2]
RECURRENT = ("LSTM", "GRU", "RNN")
METHODS = {"MinMax": quantization.CalibrationMethod.MinMax, "Entropy": quantization.CalibrationMethod.Entropy,
           "Percentile": quantization.CalibrationMethod.Percentile}
DYNAMIC = ("digits_lstm", "digits_mlp", "families/lstm", "bert_base")
MOST_DB, MOST_P, MOST_POINTS = 0.2, 0.05, 0.1


class Reader(quantization.CalibrationDataReader):
    """Hands out samples one by one."""

    def __init__(self, case):
        self.feeds = case.feeds(case.calibration, 1)

    def get_next(self):
        return next(self.feeds, None)


def has_vnni():
    return "vnni" in pathlib.Path("/proc/cpuinfo").read_text(encoding="ascii")


def snr_db(expected, found):
    """Of lists of outputs: the mean over them of the noise's share."""
    shares = []
    for exact, other in zip(expected, found):
        if np.issubdtype(exact.dtype, np.floating):
            signal, noise = np.square(exact, dtype=np.float64).sum(), np.square(exact.astype(np.float64) - other).sum()
            shares.append(noise / signal if signal else float(noise > 0))
    mean = np.mean(shares)
    return float(-10 * math.log10(mean)) if mean else math.inf


def mcnemar(ours, theirs):
    """Two-sided p of the exact test for right and wrong answers to the same questions."""
    ours_alone, theirs_alone = int(np.sum(ours & ~theirs)), int(np.sum(theirs & ~ours))
    both = ours_alone + theirs_alone
    tail = sum(math.comb(both, i) for i in range(min(ours_alone, theirs_alone) + 1))
    return min(1.0, 2 * tail / 2**both)


class Judge:
    """Runs a model on what a case is judged by."""

    def __init__(self, case, threads):
        self.case, self.threads = case, threads
        fixed = [entry.shape for entry in samples.session(case.path, 1).get_inputs()]
        self.batch = 1 if any(shape and shape[0] == 1 for shape in fixed) else 64
        self.exact = self.outputs(case.path, False)

    def outputs(self, path, emulated):
        running = samples.session(path, self.threads, emulated)
        parts = [running.run(None, feed) for feed in self.case.feeds(self.case.judged, self.batch)]
        # Of a state [layers,batch,width] nothing is lost by joining along the first axis.
        return [np.concatenate(outputs) for outputs in zip(*parts)]

    def __call__(self, path, emulated):
        found = self.outputs(path, emulated)
        result = {"snr_db": snr_db(self.exact, found), "bytes": path.stat().st_size}
        if self.case.labels is not None:
            result["right"] = found[0].argmax(1) == self.case.labels
            result["accuracy"] = 100 * float(result["right"].mean())
        elif self.case.has_classes:
            result["agreement"] = 100 * float(np.mean(found[0].argmax(1) == self.exact[0].argmax(1)))
        return result

    def float_accuracy(self):
        if self.case.labels is None:
            return None
        return 100 * float(np.mean(self.exact[0].argmax(1) == self.case.labels))


def quantize_ours(case, options, arguments, work):
    """Path; exits when it does not end well."""
    out, data = work / "ours.onnx", work / "calibration.npz"
    np.savez(data, **case.calibration, **case.whole)
    passes = f"simplify,fuse,quantize{options}"
    call = [arguments.onnxpress, "compress", case.path, "-o", out, "--passes", passes, "--quiet"]
    if "scheme=static" in options:
        call += ["--calib", data]
        for name, axis in case.batch_axes.items():
            call += ["--batch-axis", f"{name}={axis}"]
    done = subprocess.run(call, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{case.name}: onnxpress ended with status {done.returncode}: {done.stderr.strip()}")
    return out


def prepared(case, work):
    """What its quantizer wants: shapes inferred, BatchNormalization folded, an opset with scales per channel."""
    source, target = work / "source.onnx", work / "prepared.onnx"
    model = onnx.load(case.path)
    if next(entry.version for entry in model.opset_import if entry.domain == "") < 13:
        model = onnx.version_converter.convert_version(model, 13)
    onnx.save(model, source)
    try:
        quantization.quant_pre_process(str(source), str(target), skip_symbolic_shape=True)
    except Exception as error:  # what it raises is not said anywhere
        print(f"  quant_pre_process of {case.name} failed: {last_line(error)}", file=sys.stderr)
        return source
    return target


def last_line(error):
    return (str(error).strip().splitlines() or [type(error).__name__])[-1][:160]


def quantize_theirs(case, work, reduced):
    """(method, path) of each that works."""
    source = prepared(case, work)
    for name, method in METHODS.items():
        for per_channel in (True, False):
            out = work / f"{name}.onnx"
            try:
                with contextlib.redirect_stdout(sys.stderr):  # it chats
                    quantization.quantize_static(
                        str(source), str(out), Reader(case), quant_format=quantization.QuantFormat.QDQ,
                        per_channel=per_channel, reduce_range=reduced, activation_type=quantization.QuantType.QUInt8,
                        weight_type=quantization.QuantType.QInt8, calibrate_method=method)
                samples.session(out, 1)
                yield name, out
                break
            except Exception as error:
                print(f"  {name} of {case.name}, per channel {per_channel}: {last_line(error)}", file=sys.stderr)


def quantize_theirs_dynamic(case, work, reduced):
    source = prepared(case, work)
    for per_channel in (True, False):
        out = work / f"dynamic_{per_channel}.onnx"
        quantization.quantize_dynamic(str(source), str(out), per_channel=per_channel, reduce_range=reduced,
                                      weight_type=quantization.QuantType.QInt8)
        yield "per channel" if per_channel else "per tensor", out


def recurrent_in(path):
    return [op for op in RECURRENT if any(node.op_type == op for node in onnx.load(path).graph.node)]


def compare(case, dynamic, arguments, work):
    """One row: what was found, and where ours is worse."""
    judge = Judge(case, arguments.threads)
    fused = dynamic or arguments.judge == "fused"
    reduced = fused and not has_vnni()
    target = "ort-cpu-avx2" if reduced else "ort-cpu"
    spared = [] if dynamic else recurrent_in(case.path)
    options = [f"scheme={'dynamic' if dynamic else 'static'}", f"target={target}", *arguments.options]
    if spared:
        options.append("overrides='" + ";".join(f"op:{op}=float" for op in spared) + "'")
    ours = judge(quantize_ours(case, "{" + ",".join(options) + "}", arguments, work), not fused)
    make = quantize_theirs_dynamic if dynamic else quantize_theirs
    theirs = {}
    for name, path in make(case, work, reduced):
        theirs[name] = judge(path, not fused)
    row = {"model": case.name + (", dynamic" if dynamic else ""), "float": judge.float_accuracy(), "ours": ours,
           "theirs": theirs, "judged": len(next(iter(case.judged.values()))), "spared": spared}  # fmt: skip
    row["worse"] = worse(row)
    return row


def worse(row):
    found, ours, theirs = [], row["ours"], row["theirs"]
    if theirs:
        best = max(each["snr_db"] for each in theirs.values())
        if ours["snr_db"] < best - MOST_DB:
            found.append(f"SNR {best - ours['snr_db']:.2f} dB below")
    if row["float"] is None:
        return found
    if theirs:
        best = max(theirs.values(), key=lambda each: each["accuracy"])
        row["p"] = mcnemar(ours["right"], best["right"])
        if ours["accuracy"] < best["accuracy"] and row["p"] <= MOST_P:
            found.append(f"accuracy {best['accuracy'] - ours['accuracy']:.2f} points below, p = {row['p']:.3f}")
    if row["model"].startswith("mnist") and row["float"] - ours["accuracy"] > MOST_POINTS:
        found.append(f"loses {row['float'] - ours['accuracy']:.2f} points")
    return found


def cell(each):
    if each is None:
        return "fails"
    classes = each.get("accuracy", each.get("agreement"))
    return f"{each['snr_db']:.2f}" + (f" / {classes:.2f}" if classes is not None else "")


def show(row, dynamic):
    names = ("per channel", "per tensor") if dynamic else METHODS
    theirs = [cell(row["theirs"].get(name)) for name in names]
    best = max((each["snr_db"] for each in row["theirs"].values()), default=None)
    gain = f"{row['ours']['snr_db'] - best:+.2f}" if best is not None else "-"
    exact = "-" if row["float"] is None else f"{row['float']:.2f}"
    size = min((each["bytes"] for each in row["theirs"].values()), default=None)
    ratio = f"{row['ours']['bytes'] / size:.2f}" if size else "-"
    p = f"{row['p']:.3f}" if "p" in row else "-"
    name = row["model"] + ("*" if row["spared"] else "")
    cells = [name, str(row["judged"]), exact, cell(row["ours"]), *theirs, gain, p, ratio]
    print("| " + " | ".join(cells) + " |", flush=True)


def table(names, dynamic, collection, arguments):
    heads = ("per channel", "per tensor") if dynamic else METHODS
    columns = ["model", "samples", "float, %", "ours", *heads, "gain, dB", "McNemar's p", "bytes, ours over theirs"]
    print("\n| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|", flush=True)
    rows = []
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            try:
                rows.append(compare(collection.make(name), dynamic, arguments, pathlib.Path(folder)))
            except Exception as error:
                traceback.print_exc()
                rows.append({"model": name, "worse": [f"not compared: {last_line(error)}"]})
                continue
        show(rows[-1], dynamic)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--onnxpress", type=pathlib.Path, default=ROOT / "build/onnxpress")
    parser.add_argument("--models", type=pathlib.Path, default=ROOT / "build/bench-models")
    parser.add_argument("--judge", choices=("emulated", "fused"), default="emulated")
    parser.add_argument("--options", nargs="+", default=[], metavar="NAME=VALUE", help="more of quantize, for ours")
    parser.add_argument("--scheme", choices=("static", "dynamic"), help="only this table")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", type=pathlib.Path)
    arguments = parser.parse_args()
    data = pathlib.Path(os.environ.get("ONNXPRESS_DATA", ROOT.parent / "shared"))
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        collection = samples.Collection(ROOT / "testdata", arguments.models, data, arguments.onnxpress, work)
        if unknown := set(arguments.names) - set(collection.makers):
            parser.error(f"no such model: {', '.join(sorted(unknown))}; there are {', '.join(collection.makers)}")
        names = arguments.names or list(collection.makers)
        print("SNR in dB / accuracy or agreement in %; *: recurrent operators left in float, as theirs does")
        rows = []
        if arguments.scheme != "dynamic":
            rows += table(names, False, collection, arguments)
        if arguments.scheme != "static" and any(name in DYNAMIC for name in names):
            rows += table([name for name in names if name in DYNAMIC], True, collection, arguments)
    bad = [f"{row['model']}: {', '.join(row['worse'])}" for row in rows if row["worse"]]
    compared = [row for row in rows if row.get("theirs")]
    better = sum(row["ours"]["snr_db"] > max(each["snr_db"] for each in row["theirs"].values()) for row in compared)
    print(f"\nhigher SNR than the best of theirs on {better} of {len(compared)}")
    print("worse on: " + ("; ".join(bad) or "none"))
    if arguments.json:
        for row in rows:
            for each in (row.get("ours", {}), *row.get("theirs", {}).values()):
                each.pop("right", None)
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
