"""finetune trains every family of testdata/, and ONNX Runtime makes of the result what our engine does."""

import json

import numpy as np
import onnx
import pytest
from conftest import TESTDATA, relative_error, run_runtime, session
from onnx import numpy_helper

DATA = {"tiny_bert": "tokens", "tiny_bert_dynamo": "tokens", "speech_gru": "speech"}
# Samples to train on: a family's pass over all of them takes too long for a test.
SAMPLES = {"tiny_bert": 128, "tiny_bert_dynamo": 128, "speech_gru": 64}
LOSSES = {
    "digits_mlp": "cross_entropy(logits)",
    "digits_cnn": "cross_entropy(logits)",
    "digits_dwcnn": "cross_entropy(logits)",
    "digits_lstm": "cross_entropy(logits)",
    "speech_gru": "cross_entropy(log_probabilities)",
    "tiny_bert": "cross_entropy(logits)",
    "tiny_bert_dynamo": "cross_entropy(logits)",
    "digits_vae": "elbo(recon,mu,logvar)",
}


def training_data(name, folder, labelled=True):
    arrays = dict(np.load(TESTDATA / f"{DATA.get(name, 'digits')}_train.npz"))
    count = SAMPLES.get(name, 256)
    arrays = {key: value[:count] for key, value in arrays.items()}
    if not labelled:
        del arrays["y"]
    path = folder / "train.npz"
    np.savez(path, **arrays)
    return path, arrays


def with_noise(name, folder):
    """The model with its weights disturbed, so that there is something to learn."""
    model = onnx.load(TESTDATA / f"{name}.onnx")
    random = np.random.default_rng(1)
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32 and array.ndim >= 2:
            array = array + random.normal(0, 0.5 * array.std(), array.shape).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    path = folder / "model.onnx"
    onnx.save(model, path)
    return path


def feeds(path, arrays, count=16):
    inputs = [value.name for value in session(path).get_inputs()]
    given = [key for key in arrays if key not in ("y", "y_len", "x_len")]
    names = dict(zip(inputs, inputs if set(inputs) <= set(given) else given))
    return {name: arrays[key][:count] for name, key in names.items()}


@pytest.mark.parametrize("name", LOSSES)
def test_family_trains_and_loads(onnxpress, tmp_path, name):
    model = with_noise(name, tmp_path)
    data, arrays = training_data(name, tmp_path, labelled=name != "digits_vae")
    tuned = tmp_path / "tuned.onnx"
    report = onnxpress.report(
        "finetune", model, "-o", tuned, "--train", data, "--epochs", 3, "--learning-rate", 0.002, "--threads", 1,
        folder=tmp_path,
    )  # fmt: skip
    training = report["passes"][0]["training"]
    assert training["loss"] == LOSSES[name]
    losses = [epoch["held_out_loss"] for epoch in training["epochs"]]
    assert min(losses[1:]) < losses[0], losses
    assert training["best_epoch"] > 0

    inputs = feeds(tuned, arrays)
    np.savez(tmp_path / "inputs.npz", **inputs)
    onnxpress("run", tuned, "--input", tmp_path / "inputs.npz", "-o", tmp_path / "outputs.npz")
    ours = np.load(tmp_path / "outputs.npz")
    theirs = run_runtime(tuned, inputs)
    before = run_runtime(model, inputs)
    for output, values in theirs.items():
        assert relative_error(values, ours[output]) < 1e-4, output
    assert any(relative_error(before[output], values) > 1e-3 for output, values in theirs.items())


def test_ctc_from_the_command_line(onnxpress, tmp_path):
    arrays = dict(np.load(TESTDATA / "speech_train.npz"))
    frames = arrays["y"][:64]
    # Class 0 separates; what repeats is one symbol.
    lines = [[int(b) for a, b in zip([-1, *line], line) if a != b and b != 0] for line in frames.tolist()]
    width = max(map(len, lines))
    symbols = np.array([line + [0] * (width - len(line)) for line in lines], np.int64)
    lengths = np.array([len(line) for line in lines], np.int64)
    np.savez(
        tmp_path / "ctc.npz",
        x=arrays["x"][:64],
        y=symbols,
        y_len=lengths,
        x_len=np.full(64, frames.shape[1], np.int64),
    )
    model = with_noise("speech_gru", tmp_path)
    report = onnxpress.report(
        "finetune", model, "-o", tmp_path / "o.onnx", "--train", tmp_path / "ctc.npz", "--epochs", 4,
        "--learning-rate", 0.003, "--threads", 1, folder=tmp_path,
    )  # fmt: skip
    training = report["passes"][0]["training"]
    assert training["loss"] == "ctc(log_probabilities)"
    losses = [epoch["held_out_loss"] for epoch in training["epochs"]]
    assert min(losses[1:]) < 0.8 * losses[0], losses


def test_accuracy_that_the_report_says_is_what_the_runtime_gets(onnxpress, tmp_path):
    model = with_noise("digits_cnn", tmp_path)
    data, _ = training_data("digits_cnn", tmp_path)
    tuned = tmp_path / "tuned.onnx"
    report = onnxpress.report(
        "finetune", model, "-o", tuned, "--train", data, "--eval", TESTDATA / "digits_test.npz", "--epochs", 4,
        "--threads", 1, folder=tmp_path,
    )  # fmt: skip
    test = np.load(TESTDATA / "digits_test.npz")
    scores = run_runtime(tuned, {"x": test["x"]})["logits"]
    accuracy = float((scores.argmax(1) == test["y"]).mean())
    assert abs(report["accuracy"]["after"]["metrics"]["top1"]["value"] - accuracy) < 0.0021  # one sample of 500
    assert accuracy > report["accuracy"]["before"]["metrics"]["top1"]["value"]


def with_dropout(path, out, in_training):
    """digits_cnn with Dropout in front of its last product; in training mode as PyTorch's TrainingMode.TRAINING writes it, or not."""
    model = onnx.load(path)
    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(np.array(0.3, np.float32), "ratio"))
    graph.initializer.append(numpy_helper.from_array(np.array(True), "training"))
    at = max(i for i, node in enumerate(graph.node) if node.op_type == "Gemm")
    inputs = [graph.node[at].input[0], "ratio"] + (["training"] if in_training else [])
    graph.node.insert(at, onnx.helper.make_node("Dropout", inputs, ["dropped"]))
    graph.node[at + 1].input[0] = "dropped"
    for i, node in enumerate(graph.node):
        if in_training and node.op_type == "BatchNormalization":
            kept = [attribute for attribute in node.attribute if attribute.name != "training_mode"]
            del node.attribute[:]
            node.attribute.extend([*kept, onnx.helper.make_attribute("training_mode", 1)])
            node.output.extend([f"running_mean_{i}", f"running_variance_{i}"])
    if not in_training:
        del graph.initializer[-1]
    onnx.checker.check_model(model)
    onnx.save(model, out)
    return out


def test_models_exported_in_training_mode_train_as_those_for_inference(onnxpress, tmp_path):
    model = with_noise("digits_cnn", tmp_path)
    data, _ = training_data("digits_cnn", tmp_path)
    written = {}
    for in_training in (True, False):
        start = with_dropout(model, tmp_path / f"start-{in_training}.onnx", in_training)
        for verb in ("finetune", "distill"):
            out = tmp_path / f"{verb}-{in_training}.onnx"
            models = [start] if verb == "finetune" else ["--teacher", start, "--student", TESTDATA / "digits_mlp.onnx"]
            report = onnxpress.report(
                verb, *models, "-o", out, "--train", data, "--eval", TESTDATA / "digits_test.npz", "--epochs", 2,
                "--threads", 1, folder=tmp_path,
            )  # fmt: skip
            told = [note for note in report["notes"] if "was exported in training mode" in note]
            assert len(told) == in_training
            written[verb, in_training] = onnx.load(out)
    for verb in ("finetune", "distill"):
        nodes = written[verb, True].graph.node
        assert all(len(node.output) == 1 and "training_mode" not in str(node) for node in nodes)
        assert all(len(node.input) < 3 for node in nodes if node.op_type == "Dropout")
        arrays = [
            {tensor.name: numpy_helper.to_array(tensor) for tensor in written[verb, mode].graph.initializer}
            for mode in (True, False)
        ]
        assert all((arrays[0][name] == array).all() for name, array in arrays[1].items())
    session(tmp_path / "finetune-True.onnx")


def test_a_checkpoint_is_a_safetensors_file(onnxpress, tmp_path):
    data, _ = training_data("digits_mlp", tmp_path)
    state = tmp_path / "state.safetensors"
    onnxpress(
        "finetune", TESTDATA / "digits_mlp.onnx", "-o", tmp_path / "o.onnx", "--train", data, "--epochs", 1,
        "--checkpoint", state,
    )  # fmt: skip
    raw = state.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    metadata = header.pop("__metadata__")
    assert metadata["schema"] == "onnxpress.checkpoint/1"
    assert size % 8 == 0 and len(raw) == 8 + size + max(entry["data_offsets"][1] for entry in header.values())
    # The first parameter after the epoch is what was written, or the best one is.
    begin, end = header["best/0"]["data_offsets"]
    kept = np.frombuffer(raw[8 + size + begin : 8 + size + end], "<f4").reshape(header["best/0"]["shape"])
    initializers = [numpy_helper.to_array(tensor) for tensor in onnx.load(tmp_path / "o.onnx").graph.initializer]
    assert any(array.shape == kept.shape and (array == kept).all() for array in initializers)
