"""ONNX Runtime's side of compare.py: the same protocol as `bench_engine --serve`.

    peer.py MODEL INPUTS THREADS SECONDS        INPUTS: a folder with one NAME.npy for every input

Prints a line of JSON when the first inference is done, then measures for every line read.
"""

import json
import pathlib
import statistics
import sys
import time

import numpy as np
import onnxruntime

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from turns import peak_bytes  # noqa: E402


def measure(run, seconds, items):
    run()  # caches were anyone's
    times = []
    start = time.perf_counter()
    while len(times) < 3 or time.perf_counter() - start < seconds:
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    total = time.perf_counter() - start
    return {"calls": len(times), "median_ms": statistics.median(times) * 1e3, "mean_ms": total / len(times) * 1e3,
            "min_ms": min(times) * 1e3, "items_per_second": items * len(times) / total, "peak_rss_bytes": peak_bytes()}  # fmt: skip


def main():
    model, folder, threads, seconds = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    before = peak_bytes()
    start = time.perf_counter()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    load = time.perf_counter() - start
    line = {"ready_ms": load * 1e3, "rss_before_bytes": before, "version": onnxruntime.__version__}
    arrays = {path.stem: np.load(path) for path in sorted(folder.glob("*.npy"))}
    binding = session.io_binding()
    for index, value in enumerate(session.get_inputs()):
        binding.bind_cpu_input(value.name, arrays[str(index)])
    for value in session.get_outputs():
        binding.bind_output(value.name)
    start = time.perf_counter()
    session.run_with_iobinding(binding)
    line["first_inference_ms"] = (load + time.perf_counter() - start) * 1e3
    print(json.dumps(line), flush=True)
    first = arrays["0"]
    for _ in sys.stdin:
        print(json.dumps(measure(lambda: session.run_with_iobinding(binding), seconds, first.shape[0] if first.ndim else 1)), flush=True)


if __name__ == "__main__":
    main()
