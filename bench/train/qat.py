"""Quantization-aware training of trained classifiers: accuracy in ONNX Runtime against float and against quantizing alone.

    build/python-env/bin/python bench/train/qat.py [--models mnist_lenet5 digits_cnn] [--seeds 5] [--only w4a4 w2] [--epochs 6]

Each setting is trained once per seed from the same float model, on the training set, a tenth of which is held out and chooses
the epoch. Accuracy is that of the written file in ONNX Runtime on the test set. Results are kept one per file in
--results, so that a run goes on where it was stopped. Ends with status 1 if a median misses its bar.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

import numpy as np
import onnxruntime

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Options of `quantize`, and how many points of accuracy may be lost: `bars` by kind of model.
SETTINGS = {
    "w4a4": {"options": "bits=4,act_bits=4", "bars": {"mnist": 0.3, "digits": 1.0}},
    "w2": {"options": "scheme=weights,bits=2", "bars": {"mnist": 1.0, "digits": 1.0}},
    "w2a8": {"options": "bits=2,act_bits=8", "bars": {"mnist": 1.0, "digits": 1.0}},
    "w2a4": {"options": "bits=2,act_bits=4", "bars": {}},
    "w2a2": {"options": "bits=2,act_bits=2", "bars": {}},
}


def accuracy(path, x, y, threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    scores = np.concatenate([session.run(None, {name: x[i : i + 500]})[0] for i in range(0, len(x), 500)])
    return 100 * float(np.mean(scores.argmax(1) == y))


def samples(model, args):
    """float32 samples and labels of the training and of the test set."""
    result = []
    for part in ("train", "test"):
        if model.startswith("mnist"):
            with np.load(args.data / f"mnist_{part}.npz") as data:
                result.append((data["x"].reshape(-1, 1, 28, 28).astype(np.float32) / 255, data["y"]))
        else:
            with np.load(ROOT / f"testdata/digits_{part}.npz") as data:
                result.append((data["x"], data["y"]))
    return result


def compress(args, source, target, passes, *arguments):
    """The report of the pass and the seconds it took."""
    report = target.with_suffix(".json")
    call = [args.onnxpress, "compress", source, "-o", target, "--passes", passes, "--quiet", "--threads", str(args.threads),
            "--report", report, *arguments]  # fmt: skip
    begin = time.perf_counter()
    done = subprocess.run([str(part) for part in call], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{passes}: {done.stderr.strip()}")
    return json.loads(report.read_text())["passes"][-1], time.perf_counter() - begin


def run(args, model, setting, seed, source, data, train):
    """The record of one training, from its file if it is there."""
    kept = args.results / f"{model}_{setting}_{seed}.json"
    training = f"epochs={args.epochs},batch_size={args.batch},learning_rate={args.rate},schedule=cosine,optimizer=adam"
    if kept.exists():
        record = json.loads(kept.read_text())
        if record["training"] == training:
            return record
    x, y = data
    options = SETTINGS[setting]["options"]
    target = args.work / f"{model}_{setting}_{seed}.onnx"
    compress(args, source, target, f"quantize{{{options},method=mse}}", "--calib", args.work / f"{model}_calib.npz")
    record = {"model": model, "setting": setting, "seed": seed, "training": training, "ptq": accuracy(target, x, y, args.threads)}
    done, seconds = compress(args, source, target, f"quantize_aware{{{options},{training}}}", "--train", train, "--seed", str(seed))
    record |= {"qat": accuracy(target, x, y, args.threads), "seconds": round(seconds, 1), "best_epoch": done["training"]["best_epoch"],
               "bytes": target.stat().st_size}  # fmt: skip
    kept.write_text(json.dumps(record, indent=1) + "\n")
    return record


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--onnxpress", type=pathlib.Path, default=ROOT / "build/onnxpress")
    parser.add_argument("--folder", type=pathlib.Path, default=ROOT / "build/bench-models/trained", help="of the MNIST models")
    parser.add_argument("--data", type=pathlib.Path, default=pathlib.Path(os.environ.get("ONNXPRESS_DATA", ROOT / "../shared")) / "data")
    parser.add_argument("--results", type=pathlib.Path, default=ROOT / "build/bench-qat/results")
    parser.add_argument("--models", nargs="+", default=["mnist_lenet5", "digits_cnn"])
    parser.add_argument("--only", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=0.001)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    args.work = ROOT / "build/bench-qat"
    args.results.mkdir(parents=True, exist_ok=True)
    args.work.mkdir(parents=True, exist_ok=True)
    missed = []
    print("| model | setting | float | quantize | quantize_aware (median) | lowest, highest | lost | seconds |")
    print("|---|---|---|---|---|---|---|---|")
    for model in args.models:
        source = (args.folder if model.startswith("mnist") else ROOT / "testdata") / f"{model}.onnx"
        (train_x, train_y), test = samples(model, args)
        train = args.work / f"{model}_train.npz"
        np.savez(train, x=train_x, y=train_y)
        np.savez(args.work / f"{model}_calib.npz", x=train_x[:1024], y=train_y[:1024])
        exact = accuracy(source, *test, args.threads)
        for setting in args.only:
            records = [run(args, model, setting, seed, source, test, train) for seed in range(1, args.seeds + 1)]
            found = sorted(record["qat"] for record in records)
            median, lost = statistics.median(found), exact - statistics.median(found)
            bar = SETTINGS[setting]["bars"].get(model.split("_")[0])
            if bar is not None and lost > bar:
                missed.append(f"{model} {setting}: {lost:.2f} points lost, at most {bar} expected")
            print(f"| {model} | {setting} | {exact:.2f} | {records[0]['ptq']:.2f} | {median:.2f} | {found[0]:.2f}, {found[-1]:.2f} "
                  f"| {lost:.2f}{'' if bar is None else f' (bar {bar})'} | {statistics.median(r['seconds'] for r in records):.0f} |", flush=True)  # fmt: skip
    for line in missed:
        print(f"missed: {line}")
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
