"""--augment, --log and --tensorboard: JSON Lines and event files that TensorBoard itself reads."""

import json

import numpy as np
import pytest
from conftest import TESTDATA
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def finetune(onnxpress, folder, *arguments, status=0):
    data = dict(np.load(TESTDATA / "digits_train.npz"))
    np.savez(folder / "train.npz", x=data["x"][:256], y=data["y"][:256])
    return onnxpress("finetune", TESTDATA / "digits_cnn.onnx", "--train", folder / "train.npz", "-o", folder / "out.onnx",
                     "--epochs", "2", "--batch-size", "64", *arguments, status=status)  # fmt: skip


def test_logs_agree(onnxpress, tmp_path):
    finetune(onnxpress, tmp_path, "--hold-out", "0.25", "--clip-norm", "5", "--log", tmp_path / "log.jsonl",
             "--tensorboard", tmp_path / "board")  # fmt: skip
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["type"] == "step"]
    epochs = [line for line in lines if line["type"] == "epoch" and line["epoch"] > 0]
    assert lines[0] == {"type": "begin", "pass": "finetune", "training": 1, "samples": 192, "held_out": 64, "epochs": 2,
                        "batch": 64, "first_epoch": 1}  # fmt: skip
    assert [line["step"] for line in steps] == [1, 2, 3, 4, 5, 6]
    assert [line["epoch"] for line in epochs] == [1, 2]
    assert all(line["gradient_norm"] > 0 for line in steps)
    board = EventAccumulator(str(tmp_path / "board"), size_guidance={"scalars": 0})
    board.Reload()
    tags = {"train/loss", "train/learning_rate", "train/gradient_norm", "epoch/loss", "epoch/held_out_loss",
            "epoch/held_out_accuracy", "epoch/samples_per_second"}  # fmt: skip
    assert set(board.Tags()["scalars"]) == tags
    for tag, key in (("train/loss", "loss"), ("train/learning_rate", "learning_rate"), ("train/gradient_norm", "gradient_norm")):
        events = board.Scalars(tag)
        assert [event.step for event in events] == [line["step"] for line in steps]
        np.testing.assert_allclose([event.value for event in events], [line[key] for line in steps], rtol=1e-6)
    for tag, key in (("epoch/loss", "loss"), ("epoch/held_out_loss", "held_out_loss"), ("epoch/held_out_accuracy", "held_out_accuracy")):
        by_step = {event.step: event.value for event in board.Scalars(tag)}
        np.testing.assert_allclose([by_step[line["step"]] for line in epochs], [line[key] for line in epochs], rtol=1e-6)


def scalars(folder, tag):
    board = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    board.Reload()
    return [event.step for event in board.Scalars(tag)]


def test_several_trainings_that_are_resumed(onnxpress, tmp_path):
    data = dict(np.load(TESTDATA / "digits_train.npz"))
    np.savez(tmp_path / "train.npz", x=data["x"][:256], y=data["y"][:256])
    log, board = tmp_path / "log.jsonl", tmp_path / "board"
    passes = "finetune{epochs=1,batch_size=64,hold_out=0},quantize_aware{epochs=3,batch_size=64,hold_out=0}"
    arguments = ["compress", TESTDATA / "digits_mlp.onnx", "--train", tmp_path / "train.npz", "-o", tmp_path / "out.onnx",
                 "--checkpoint", tmp_path / "state", "--log", log, "--tensorboard", board, "--threads", "1"]  # fmt: skip
    onnxpress(*arguments, "--passes", passes)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    places = [(line["pass"], line["training"]) for line in lines]
    assert places == [("finetune", 1)] * 6 + [("quantize_aware", 2)] * 16
    assert scalars(board, "train/loss") == [1, 2, 3, 4]
    assert scalars(board / "2-quantize_aware", "train/loss") == list(range(1, 13))
    # What was done is not told again, and what comes again replaces what was told.
    whole = log.read_text()
    onnxpress(*arguments, "--passes", passes, "--resume")
    assert log.read_text() == whole
    (tmp_path / "state.2").unlink()
    onnxpress(*arguments, "--passes", passes, "--resume")
    again = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(line["type"], line["training"], line.get("step")) for line in again] == [
        (line["type"], line["training"], line.get("step")) for line in lines
    ]
    assert scalars(board / "2-quantize_aware", "train/loss") == list(range(1, 13))


def test_records_of_several_steps(onnxpress, tmp_path):
    finetune(onnxpress, tmp_path, "--hold-out", "0", "--log", tmp_path / "log.jsonl", "--log-every", "3")
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    # The last step of an epoch has a record of its own.
    assert [line["step"] for line in lines if line["type"] == "step"] == [3, 4, 7, 8]


def test_augmented_training_is_said_and_repeats(onnxpress, tmp_path):
    augment = ["--augment", "shift=1,rotate=10,noise=0.05,mixup=0.2", "--hold-out", "0", "--seed", "4"]
    report = tmp_path / "report.json"
    models = []
    for _ in range(2):
        finetune(onnxpress, tmp_path, *augment, "--threads", "1", "--report", report)
        models.append((tmp_path / "out.onnx").read_bytes())
    assert models[0] == models[1]
    notes = json.loads(report.read_text())["passes"][-1]["notes"]
    assert any("rotate 10 degrees, shift 1, noise 0.05, mixup 0.2" in note for note in notes)
    finetune(onnxpress, tmp_path, "--hold-out", "0", "--threads", "1")
    assert (tmp_path / "out.onnx").read_bytes() != models[0]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--augment", "shfit=1"], "did you mean 'shift'"),
        (["--augment", "shift=1,image=3x5x5"], "expected samples of 'x' to hold 75 elements"),
        (["--log-every", "2"], "expected --log FILE or --tensorboard DIR"),
        (["--log", "train.npz"], "train.npz"),
    ],
)
def test_refusals(onnxpress, tmp_path, arguments, message):
    if arguments == ["--log", "train.npz"]:
        arguments = ["--log", tmp_path / "train.npz"]
    done = finetune(onnxpress, tmp_path, *arguments, status=2)
    assert message in done.stderr.decode()
    assert not (tmp_path / "out.onnx").exists()
