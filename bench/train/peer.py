"""PyTorch's side of speed.py.

    peer.py NAME --write FOLDER                     NAME.onnx, NAME_teacher.onnx if there is a teacher, and NAME.npz
    peer.py NAME OPTIMIZER THREADS SECONDS          trains NAME

The second prints a line of JSON after some steps, then trains for SECONDS for every line that it reads.
"""

import json
import pathlib
import statistics
import sys
import time

import torch
from cases import CASES, loss_of, made

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from turns import peak_bytes  # noqa: E402

OPTIMIZERS = {
    "momentum": lambda parameters, rate: torch.optim.SGD(parameters, rate, momentum=0.9),
    "adam": lambda parameters, rate: torch.optim.Adam(parameters, rate),
}
RATES = {"momentum": 0.01, "adam": 0.001}
WARM_UP = 5


def export(net, case, arrays, path):
    inputs = {name: torch.from_numpy(arrays[name][: case.batch]) for name in case.inputs}
    axes = {name: {0: "batch"} for name in [*inputs, "output"]}
    torch.onnx.export(
        net.eval(), tuple(inputs.values()), path, dynamo=False, opset_version=20, input_names=list(inputs),
        output_names=["output"], dynamic_axes=axes, training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
    )  # fmt: skip


def write(name, folder):
    import numpy as np  # noqa: PLC0415

    case = CASES[name]
    arrays = case.arrays()
    np.savez(folder / f"{name}.npz", **arrays)
    export(made(case.net), case, arrays, folder / f"{name}.onnx")
    if case.teacher is not None:
        export(made(case.teacher), case, arrays, folder / f"{name}_teacher.onnx")


class Training:
    def __init__(self, name, optimizer):
        case = CASES[name]
        self.net = made(case.net).train()
        self.teacher = made(case.teacher).eval() if case.teacher is not None else None
        self.optimizer = OPTIMIZERS[optimizer](self.net.parameters(), RATES[optimizer])
        self.samples, self.steps = case.batch, 0
        arrays = {key: torch.from_numpy(array) for key, array in case.arrays().items()}
        parts = {key: array.split(case.batch) for key, array in arrays.items()}
        self.batches = [([parts[key][i] for key in case.inputs], parts["y"][i]) for i in range(len(parts["y"]))]

    def step(self):
        inputs, labels = self.batches[self.steps % len(self.batches)]
        self.steps += 1
        self.optimizer.zero_grad()
        soft = None
        if self.teacher is not None:
            with torch.no_grad():
                soft = self.teacher(*inputs)
        loss = loss_of(self.net(*inputs), labels, soft)
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def measure(self, seconds):
        self.step()  # caches were anyone's
        times, start = [], time.perf_counter()
        while len(times) < 3 or time.perf_counter() - start < seconds:
            begin = time.perf_counter()
            self.step()
            times.append(time.perf_counter() - begin)
        total = time.perf_counter() - start
        return {"median_ms": statistics.median(times) * 1e3, "items_per_second": self.samples * len(times) / total,
                "peak_rss_bytes": peak_bytes()}  # fmt: skip


def main():
    name = sys.argv[1]
    if sys.argv[2] == "--write":
        write(name, pathlib.Path(sys.argv[3]))
        return
    optimizer, threads, seconds = sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    torch.set_num_threads(threads)
    before = peak_bytes()
    training = Training(name, optimizer)
    losses = [training.step() for _ in range(WARM_UP)]
    print(json.dumps({"losses": losses, "rss_before_bytes": before, "version": torch.__version__}), flush=True)
    for _ in sys.stdin:
        print(json.dumps(training.measure(seconds)), flush=True)


if __name__ == "__main__":
    main()
