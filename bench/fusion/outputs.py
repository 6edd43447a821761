"""Outputs and latency of model files in ONNX Runtime."""

import statistics
import time

import numpy as np
import onnxruntime

BAR = 1e-4
"""Of the output's range."""
OWN_FACTOR = 2
"""Where ONNX Runtime with and without its own optimizations differ by more than the bar, twice that is allowed."""
TURN_SECONDS = 0.05


def session(model, optimized=True):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "0")
    options.intra_op_num_threads = 1
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def run(opened, feeds):
    """Outputs by name."""
    try:
        return dict(zip([value.name for value in opened.get_outputs()], opened.run(None, feeds)))
    except Exception as error:  # onnxruntime's exceptions share no other base
        raise ValueError(f"ONNX Runtime: {str(error).splitlines()[0][:120]}") from error


def open_or_say(model, optimized=True):
    try:
        return session(model, optimized)
    except Exception as error:  # as above
        raise ValueError(f"ONNX Runtime does not load it: {str(error).splitlines()[0][:120]}") from error


def difference(references, found):
    """The largest difference of two lists of outputs by name, over the range that each output has in `references`."""
    worst = 0.0
    for name in references[0]:
        expected = [np.asarray(outputs[name], np.float64) for outputs in references]
        if any(name not in outputs for outputs in found):
            raise ValueError(f"output '{name}' is gone")
        ours = [np.asarray(outputs[name], np.float64) for outputs in found]
        for a, b in zip(expected, ours):
            if a.shape != b.shape:
                raise ValueError(f"output '{name}': expected {a.shape}, found {b.shape}")
        expected, ours = np.concatenate([a.ravel() for a in expected]), np.concatenate([b.ravel() for b in ours])
        same = (expected == ours) | (np.isnan(expected) & np.isnan(ours))
        if same.all():
            continue
        finite = expected[np.isfinite(expected)]
        spread = float(np.ptp(finite)) if finite.size else 0.0
        distance = np.abs(expected - ours)[~same].max() / (spread or 1.0)
        worst = max(worst, np.inf if np.isnan(distance) else float(distance))
    return worst


def latencies(sessions, feeds, turns):
    """Median seconds of one call, of every session by name, measured in turns."""
    calls, times = {}, {name: [] for name in sessions}
    for name, opened in sessions.items():
        run(opened, feeds)
        start = time.perf_counter()
        run(opened, feeds)
        calls[name] = max(1, int(TURN_SECONDS / max(time.perf_counter() - start, 1e-6)))
    order = list(sessions)
    for turn in range(turns):
        for name in order if turn % 2 == 0 else reversed(order):
            start = time.perf_counter()
            for _ in range(calls[name]):
                sessions[name].run(None, feeds)
            times[name].append((time.perf_counter() - start) / calls[name])
    return {name: statistics.median(values) for name, values in times.items()}
