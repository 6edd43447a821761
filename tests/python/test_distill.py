"""Distilled models in ONNX Runtime, and the losses against formulas written out in numpy."""

import numpy as np
import onnx
import pytest
from conftest import TESTDATA, relative_error, run_runtime


def arrays(name):
    return dict(np.load(TESTDATA / name))


def outputs(path, data):
    feeds = {onnx.load(path).graph.input[0].name: data["x"]}
    return next(iter(run_runtime(path, feeds).values()))


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("name", ["digits_mlp", "digits_cnn", "digits_dwcnn"])
def test_derived_students_run_and_learn(onnxpress, tmp_path, name):
    out = tmp_path / "student.onnx"
    report = onnxpress.report(
        "distill", "--teacher", TESTDATA / f"{name}.onnx", "--student", "auto:width=0.5", "--train",
        TESTDATA / "digits_train.npz", "--epochs", 3, "--learning-rate", 0.003, "-o", out, folder=tmp_path,
    )  # fmt: skip
    onnx.checker.check_model(onnx.load(out), full_check=True)
    data = arrays("digits_test.npz")
    accuracy = (outputs(out, data).argmax(axis=1) == data["y"]).mean()
    assert accuracy > 0.9
    assert report["after"]["parameters"] < 0.55 * report["before"]["parameters"]


def test_narrow_and_shallow_transformers_run(onnxpress, tmp_path):
    tokens = arrays("tokens_test.npz")
    feeds = {key: tokens[key] for key in ("input_ids", "attention_mask")}
    for name in ("tiny_bert", "tiny_bert_dynamo"):
        source = TESTDATA / f"{name}.onnx"
        out = tmp_path / f"{name}.onnx"
        for passes in (
            "derive_student{width=0.5}",
            "derive_student{depth=0.5}",
            "derive_student{width=0.5,depth=0.5}",
        ):
            report = onnxpress.report("compress", source, "-o", out, "--passes", passes, folder=tmp_path)
            onnx.checker.check_model(onnx.load(out))
            found = next(iter(run_runtime(out, feeds).values()))
            assert found.shape == (500, 10) and np.isfinite(found).all()
            assert report["after"]["parameters"] < 0.85 * report["before"]["parameters"], (name, passes)


def test_the_loss_is_that_of_the_paper(onnxpress, tmp_path):
    """Held-out loss of the untouched student (epoch 0): T^2 KL of softened outputs, and cross-entropy of labels."""
    student, teacher = TESTDATA / "digits_mlp.onnx", TESTDATA / "digits_cnn.onnx"
    data = arrays("digits_train.npz")
    rows = np.arange(0, 200)
    np.savez(tmp_path / "part.npz", x=data["x"][rows], y=data["y"][rows])
    part = dict(np.load(tmp_path / "part.npz"))
    z, t = outputs(student, part).astype(np.float64), outputs(teacher, part).astype(np.float64)
    temperature, alpha = 3.0, 0.7
    p, q = softmax(z / temperature), softmax(t / temperature)
    soft = temperature**2 * (q * np.log(q / p)).sum(axis=1)
    hard = -np.log(softmax(z)[np.arange(len(rows)), part["y"]])
    expected = alpha * soft + (1 - alpha) * hard
    # All samples are judged when they are held out, but for one that is trained on.
    report = onnxpress.report(
        "distill", "--teacher", teacher, "--student", student, "--train", tmp_path / "part.npz", "--epochs", 1,
        "--temperature", temperature, "--alpha", alpha, "--hold-out", 0.995, "-o", tmp_path / "o.onnx", folder=tmp_path,
    )  # fmt: skip
    training = report["passes"][-1]["training"]
    assert training["held_out_samples"] == 199
    start = training["epochs"][0]
    assert start["epoch"] == 0
    lowest, highest = (expected.sum() - expected.max()) / 199, (expected.sum() - expected.min()) / 199
    assert lowest - 1e-6 <= start["held_out_loss"] <= highest + 1e-6


def test_a_pruned_model_is_distilled_from_the_original(onnxpress, tmp_path):
    out = tmp_path / "out.onnx"
    onnxpress(
        "compress", TESTDATA / "digits_cnn.onnx", "-o", out, "--passes", "prune_magnitude{sparsity=0.9},distill{epochs=2}",
        "--train", TESTDATA / "digits_train.npz",
    )  # fmt: skip
    data = arrays("digits_test.npz")
    expected, found = outputs(TESTDATA / "digits_cnn.onnx", data), outputs(out, data)
    assert (expected.argmax(axis=1) == found.argmax(axis=1)).mean() > 0.95
    assert relative_error(expected, found) < 0.5
    weights = [onnx.numpy_helper.to_array(w) for w in onnx.load(out).graph.initializer if len(w.dims) > 1]
    assert sum((w == 0).sum() for w in weights) > 0.85 * sum(w.size for w in weights)
