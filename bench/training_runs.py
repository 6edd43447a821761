"""What experiments with trainings share: results kept in files, so that what was stopped goes on where it was."""

import argparse
import hashlib
import json
import pathlib
import resource
import subprocess
import sys


def parser(description, steps, folder):
    """Options that all experiments have. What is named of `steps` on the command line is for `steps_of` to check."""
    result = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("steps", nargs="*", metavar="STEP", help="of " + ", ".join(steps))
    result.add_argument("--onnxpress", type=pathlib.Path, default="build/onnxpress")
    result.add_argument("--folder", type=pathlib.Path, default=folder)
    result.add_argument("--threads", type=int, default=2)
    return result


def steps_of(options, steps, error):
    """The steps that are to be taken: those named, or all."""
    if unknown := set(options.steps) - set(steps):
        error(f"unknown step {', '.join(sorted(unknown))}: expected {', '.join(steps)}")
    return options.steps or steps


def best_of(settings, rounds, kept, score):
    """The best of `settings`: all are tried in the first of the `rounds`, the best `kept` of them in the second, half as many in
    each one after it (successive halving, Jamieson and Talwalkar 2016). `score(options)` takes a setting with what the round has
    instead."""
    for i, instead in enumerate(rounds):
        settings = sorted(settings, key=lambda options: score(options | instead), reverse=True)
        if i + 1 < len(rounds):
            settings = settings[: max(1, kept >> i)]
    return settings[0]


def cpu_seconds():
    """Of the children of this process that have ended: other work on the machine and pauses are not in it."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Runs:
    """Trainings and evaluations by the onnxpress command. Models are kept in `folder`, results as JSON files in `results`."""

    def __init__(self, onnxpress, folder, results, threads):
        self.onnxpress, self.folder, self.results, self.threads = onnxpress, folder, results, threads
        for each in (folder, results):
            each.mkdir(parents=True, exist_ok=True)

    def stored(self, name):
        path = self.results / name
        return json.loads(path.read_text()) if path.exists() else {}

    def store(self, name, content):
        path = self.results / name
        path.with_suffix(".new").write_text(json.dumps(content, indent=1) + "\n")
        path.with_suffix(".new").replace(path)

    def command(self, *arguments):
        print("onnxpress", *arguments, file=sys.stderr, flush=True)
        subprocess.run([self.onnxpress, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)

    def trained(self, start, data, options, out, teacher=None, seed=0):
        """Trains the model `start` to `out`; what the report says of the training, and the CPU seconds it took.

        The log beside it tells how far it is. `options` are those of `finetune`, or of `distill` if there is a teacher (a path, or several with commas between).
        """
        report = out.with_suffix(".json")
        begin = ["distill", "--teacher", teacher, "--student", start] if teacher else ["finetune", start]
        flags = [part for key, value in options.items() for part in (f"--{key.replace('_', '-')}", value)]
        began = cpu_seconds()
        self.command(*begin, "--train", data, "-o", out, "--seed", seed, "--threads", self.threads, "--report", report,
                     "--log", out.with_suffix(".log"), *flags)  # fmt: skip
        return json.loads(report.read_text())["passes"][-1]["training"], round(cpu_seconds() - began, 1)

    def model_of(self, name, options):
        """Where the model of `options`, whose figures are in the file `name`, is written: others have other paths."""
        digest = hashlib.sha1(json.dumps(options, sort_keys=True).encode()).hexdigest()[:10]
        return self.folder / f"{pathlib.Path(name).stem}-{digest}.onnx"

    def held_out_score(self, name, options, train):
        """Accuracy and negative loss on held-out data at the last epoch, from the list in the file `name`, where `train(out)`, as
        `trained`, is put if `options` are not in it."""
        entries = self.stored(name) or []
        found = next((entry for entry in entries if entry["options"] == options), None)
        if not found:
            training, seconds = train(self.model_of(name, options))
            found = {"options": options} | {key: training["epochs"][-1][key] for key in ("held_out_accuracy", "held_out_loss")}
            found["seconds"] = seconds
            self.store(name, (self.stored(name) or []) + [found])
        return found["held_out_accuracy"], -found["held_out_loss"]

    def evaluated(self, model, data, *preprocessing):
        """The evaluation's part of the report: `positions`, `correct` ..."""
        report = model.with_suffix(".eval.json")
        self.command("eval", model, "--data", data, *preprocessing, "--threads", self.threads, "--report", report)
        return json.loads(report.read_text())["evaluation"]
