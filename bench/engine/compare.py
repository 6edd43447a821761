"""Speed, memory and load time of our engine against ONNX Runtime, side by side in one run; prints Markdown.

    compare.py --engine build/bench/bench_engine --onnxpress build/onnxpress [--models build/bench-models]
               [--only NAME ...] [--batch N ...] [--threads N ...] [--rounds 5] [--seconds 2] [--json FILE]

The models are those of bench/make_models.py and $ONNXPRESS_DATA/models/mobilefacenet.onnx (default ../shared). For every
model, batch and number of threads both programs load the same file, get the same inputs, stay loaded, and are measured
in turns, pinned to as many CPUs as they have threads. Rates are medians over the rounds.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnx
from onnx import numpy_helper

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from turns import Program, cpu_list, geometric_mean, take_turns  # noqa: E402

DATA = pathlib.Path(os.environ.get("ONNXPRESS_DATA", HERE.parents[2] / "shared"))
SHORT_CALL_MS = 1.0
"""Calls of ONNX Runtime shorter than this measure the caller: such cases are in the table, not in the means."""


@dataclasses.dataclass(frozen=True)
class Model:
    """A model file and the dims it is measured at ({batch} is filled in)."""

    file: str
    shapes: tuple[str, ...] = ()
    batches: tuple[int, ...] = (1, 32)
    quantized: bool = False


TOKENS = tuple(f"{name}={{batch}}x128" for name in ("input_ids", "attention_mask", "token_type_ids"))
MODELS = {
    "resnet18": Model("resnet18.onnx", ("input={batch}x3x224x224",)),
    "resnet50": Model("resnet50.onnx", ("input={batch}x3x224x224",)),
    "mobilefacenet": Model("DATA/models/mobilefacenet.onnx", batches=(1,)),
    "cifar_cnn": Model("cifar_cnn.onnx"),
    "bert_base": Model("bert_base.onnx", TOKENS),
    "lstm": Model("lstm.onnx", ("input={batch}x50x100",)),
    "speech": Model("speech.onnx", ("input={batch}x1x161x200",)),
    "mlp": Model("mlp.onnx"),
    "resnet50_int8": Model("resnet50_int8.onnx", ("input={batch}x3x224x224",), quantized=True),
    "mobilefacenet_int8": Model("mobilefacenet_int8.onnx", batches=(1,), quantized=True),
}
ALONE = {"ResNet-18 and ResNet-50": ("resnet18", "resnet50"), "BERT-base": ("bert_base",), "mobilefacenet": ("mobilefacenet",)}


class Bench:
    """The programs, and where inputs are put."""

    def __init__(self, arguments, folder):
        self.engine, self.models, self.seconds, self.folder = arguments.engine, arguments.models, arguments.seconds, folder

    def path(self, model):
        return DATA / model.file.removeprefix("DATA/") if model.file.startswith("DATA/") else self.models / model.file

    def make_inputs(self, model, batch):
        """input_N.pb for our side, N.npy for the other, equal contents; a folder."""
        folder = pathlib.Path(tempfile.mkdtemp(dir=self.folder))
        shapes = [f"--input-shape={shape.format(batch=batch)}" for shape in model.shapes]
        options = shapes or [f"--batch={batch}"]
        subprocess.run([self.engine, self.path(model), "--write-inputs", folder, *options], check=True)
        for path in folder.glob("*.pb"):
            np.save(folder / path.stem.removeprefix("input_"), numpy_helper.to_array(onnx.load_tensor(path)))
        return folder

    def ours(self, model, inputs, threads, cpus):
        return Program([self.engine, self.path(model), "--inputs", inputs, "--threads", threads, "--seconds", self.seconds, "--serve"], cpus)

    def theirs(self, model, inputs, threads, cpus):
        return Program([sys.executable, HERE / "peer.py", self.path(model), inputs, threads, self.seconds], cpus)


def measure(bench, model, batch, threads, rounds):
    inputs = bench.make_inputs(model, batch)
    subprocess.run(["cat", bench.path(model)], check=True, stdout=subprocess.DEVNULL)  # into the page cache
    cpus = cpu_list(threads)
    ours, theirs = take_turns([lambda start=start: start(model, inputs, threads, cpus) for start in (bench.ours, bench.theirs)], rounds)
    return {"ours": ours, "theirs": theirs}


def ratio(row):
    return row["ours"]["items_per_second"] / row["theirs"]["items_per_second"]


def counts(row):
    return row["batch"] > 1 or row["theirs"]["median_ms"] >= SHORT_CALL_MS


def print_row(row):
    ours, theirs = row["ours"], row["theirs"]
    mb = [side["peak_rss_bytes"] / 1e6 for side in (ours, theirs)]
    print(f"| {row['model']} | {row['batch']} | {row['threads']} | {ours['items_per_second']:,.1f} | {theirs['items_per_second']:,.1f}"
          f" | {ratio(row):.2f}{'' if counts(row) else ' (short)'} | {mb[0]:.0f} | {mb[1]:.0f} | {mb[0] / mb[1]:.2f}"
          f" | {ours['ready_ms']:.0f} / {ours['first_inference_ms']:.0f} | {theirs['ready_ms']:.0f} / {theirs['first_inference_ms']:.0f} |",
          flush=True)  # fmt: skip


def print_means(rows):
    print("\nGeometric means of the ratios of items/s and of peak memory (ours over ONNX Runtime's):\n")
    print("| cases | number | items/s | memory |")
    print("|---|---|---|---|")
    groups = {"all float models": lambda row: not MODELS[row["model"]].quantized}
    for label, names in ALONE.items():
        groups[label] = lambda row, names=names: row["model"] in names
    for name, model in MODELS.items():
        if model.quantized:
            groups[name] = lambda row, name=name: row["model"] == name
    for label, member in groups.items():
        chosen = [row for row in rows if member(row) and counts(row)]
        if not chosen:
            continue
        memory = geometric_mean([r["ours"]["peak_rss_bytes"] / r["theirs"]["peak_rss_bytes"] for r in chosen])
        print(f"| {label} | {len(chosen)} | {geometric_mean([ratio(r) for r in chosen]):.2f} | {memory:.2f} |")


def print_start(bench, onnxpress):
    """Start-up of the command, and loading ResNet-50 in new processes, in turns."""
    times = []
    for _ in range(20):
        begin = time.perf_counter()
        subprocess.run([onnxpress, "--version"], check=True, stdout=subprocess.DEVNULL)
        times.append((time.perf_counter() - begin) * 1e3)
    print(f"\n`onnxpress --version`: {statistics.median(times):.1f} ms (median of {len(times)}).")
    model = MODELS["resnet50"]
    if not bench.path(model).exists():
        return
    inputs = bench.make_inputs(model, 1)
    loads = {bench.ours: [], bench.theirs: []}
    for _ in range(5):
        for start, found in loads.items():
            side = start(model, inputs, 1, cpu_list(1))
            found.append((side.load["ready_ms"], side.load["first_inference_ms"]))
            side.close()
    texts = [" / ".join(f"{statistics.median(column):.0f}" for column in zip(*found)) for found in loads.values()]
    print(f"Loading resnet50, 1 thread, to ready / to the end of the first inference: ours {texts[0]} ms, ONNX Runtime {texts[1]} ms"
          " (medians of 5 processes each).")  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", type=pathlib.Path, required=True)
    parser.add_argument("--onnxpress", type=pathlib.Path, required=True)
    parser.add_argument("--models", type=pathlib.Path, default=pathlib.Path("build/bench-models"))
    parser.add_argument("--only", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 32])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of one side in one round; at least three calls")
    parser.add_argument("--json", type=pathlib.Path, help="also write all figures here")
    arguments = parser.parse_args()
    if max(arguments.threads) > len(os.sched_getaffinity(0)):
        parser.error(f"{max(arguments.threads)} threads need as many CPUs; there are {len(os.sched_getaffinity(0))}")

    rows, failed = [], False
    with tempfile.TemporaryDirectory() as temporary:
        bench = Bench(arguments, pathlib.Path(temporary))
        print("| model | batch | threads | items/s | ONNX Runtime | ratio | peak RSS, MB | ONNX Runtime | ratio"
              " | ready / first inference, ms | ONNX Runtime |")  # fmt: skip
        print("|---|---|---|---|---|---|---|---|---|---|---|")
        for name in arguments.only:
            model = MODELS[name]
            for batch in [b for b in arguments.batch if b in model.batches or (b > 1 and len(model.batches) > 1)]:
                for threads in arguments.threads:
                    try:
                        row = measure(bench, model, batch, threads, arguments.rounds)
                    except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
                        print(f"| {name} | {batch} | {threads} | failed: {error} |" + " |" * 7, flush=True)
                        failed = True
                        continue
                    rows.append({"model": name, "batch": batch, "threads": threads, **row})
                    print_row(rows[-1])
        if rows:
            print_means(rows)
            before = statistics.median(row["theirs"]["rss_before_bytes"] for row in rows)
            print(f"\nONNX Runtime {rows[0]['theirs']['version']}; its process has {before / 1e6:.0f} MB before it loads a model (Python, numpy,"
                  " the library). '(short)': not in the means.")  # fmt: skip
            print_start(bench, arguments.onnxpress)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
