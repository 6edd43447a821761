"""What ONNX Runtime, with all graph optimizations off, makes of the exported models."""

from pathlib import Path

import numpy as np
import onnxruntime


def session(path: Path) -> onnxruntime.InferenceSession:
    """A single-threaded, unoptimized CPU session."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run(model: onnxruntime.InferenceSession, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs by name."""
    names = [output.name for output in model.get_outputs()]
    return dict(zip(names, model.run(names, feeds)))


def write_outputs(path: Path, feeds: dict[str, np.ndarray], target: Path) -> None:
    """Stores inputs and outputs under the graph's own names."""
    np.savez_compressed(target, **feeds, **run(session(path), feeds))


def accuracy(path: Path, feeds: dict[str, np.ndarray], labels: np.ndarray) -> dict[str, float]:
    """Samples (frames, where frames are labelled), correct, accuracy and mean cross-entropy in nats of a classifier."""
    (scores,) = run(session(path), feeds).values()
    scores = scores.reshape(-1, scores.shape[-1]).astype(np.float64)
    labels = labels.reshape(-1)
    shifted = scores - scores.max(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    correct = int((scores.argmax(axis=1) == labels).sum())
    loss = -log_probabilities[np.arange(len(labels)), labels].mean()
    return {
        "samples": len(labels),
        "correct": correct,
        "accuracy": correct / len(labels),
        "cross_entropy": round(float(loss), 6),
    }
