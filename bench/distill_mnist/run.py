"""Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network", section 3, with the onnxpress command.

    run.py [STEP ...] [--onnxpress build/onnxpress] [--folder build/distill_mnist] [--seeds 0 1 2 3 4]
           [--threads 2] [--smoke]

A teacher 784-1200-1200-10 is trained with dropout, bounded weights and images jittered by two pixels; a student
784-800-800-10 on the labels alone, and the same student on soft targets at temperature 20 without jitter. Steps, all of
them unless some are named: `teacher` (one, for all seeds), `search` (options of the teacher, which `teacher` searches too, and
of each kind of student on 50,000 of the training images, judged on the other 10,000, the best few for longer), `hard` and
`soft` (one student a seed, on all 60,000 images), `table`. The test images are looked at by nothing but the last evaluation
of a trained model.

Results go to results/ beside this script: teacher.json, hard-SEED.json, soft-SEED.json and search-KIND.json. What a file has
is not computed again (but where the search has chosen other options since, and for the teacher, where its model is gone and a
student needs it), so that an interrupted run goes on, and parts may run side by side; delete the file, or the entry, to do it
again. Models and the teacher's outputs are kept in --folder. --smoke: one epoch of everything on 2,000 images, all of it in
--folder/smoke.
"""

import os
import pathlib
import statistics
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import training_runs  # noqa: E402
from training_runs import Runs  # noqa: E402

DATA = pathlib.Path(os.environ.get("ONNXPRESS_DATA", HERE.parents[1] / ".." / "shared")) / "data"
SHARED = {"input_scale": "1/255", "batch_size": 128, "optimizer": "momentum", "momentum": 0.9, "schedule": "cosine"}
COMMON = {
    "teacher": {"warmup": 1, "augment": "shift=2"},
    "hard": {"warmup": 1},
    "soft": {"warmup": 1, "temperature": 20, "soft": "distillation"},
}
SEARCH = {
    "teacher": (4, [{"epochs": 20}, {"epochs": 60}, {"epochs": 150}]),
    "hard": (2, [{"epochs": 15}, {"epochs": 60}]),
    "soft": (2, [{"epochs": 60}, {"epochs": 150}]),
}
"""How many settings the second round of the search takes over, and for how long each round trains. The best are those of the best
held-out accuracy; in the teacher's last round, those with the best student, trained as JUDGE says, in the students' last round the
best means of trainings from the weights of several seeds (STARTS)."""
STARTS = (100, 101, 102)
JUDGE = {"learning_rate": 0.05, "alpha": 0.98, "weight_decay": 3e-3, "epochs": 150}
GRID = {
    "teacher": [
        {"learning_rate": rate, "dropout": dropout, "max_norm": bound}
        for dropout, bound, rate in (
            ("0.5", 3, 0.1),
            ("0.3;tensor:x=0.1", 2, 0.1),
            ("0.3;tensor:x=0.1", 3, 0.1),
            ("0.3;tensor:x=0.1", 3, 0.2),
            ("0.3", 3, 0.1),
            ("0.25;tensor:x=0.1", 3, 0.1),
            ("0.2;tensor:x=0.2", 3, 0.1),
            ("0.2;tensor:x=0.1", 3, 0.1),
            ("0.2;tensor:x=0.1", 4, 0.1),
            ("0.2", 2, 0.1),
            ("0.2", 4, 0.1),
        )
    ],
    "hard": [{"learning_rate": rate, "weight_decay": decay} for rate in (0.03, 0.1) for decay in (0, 1e-3, 3e-3)],
    "soft": [{"learning_rate": 0.05, "alpha": 0.98, "weight_decay": decay} for decay in (0, 1e-3, 3e-3, 1e-2)],
}
"""With the factor T^2, soft gradients are larger than hard ones: lower rates (0.1 diverges). In trainings of 15 epochs a rate of
0.03 was better than 0.01, and alpha 0.98 better than 0.9. Soft losses fall for longer than hard ones: more epochs."""


def write_net(path, widths, seed):
    """An MLP with rectifiers on [n,1,28,28], its weights drawn as He et al. 2015 have it."""
    draw = np.random.default_rng(seed)
    nodes, weights, value = [helper.make_node("Flatten", ["x"], ["h0"])], [], "h0"
    for i, (rows, columns) in enumerate(zip(widths, widths[1:]), 1):
        weight = draw.standard_normal((rows, columns)) * np.sqrt((1 if i == len(widths) - 1 else 2) / rows)
        weights.append(numpy_helper.from_array(weight.astype(np.float32), f"w{i}"))
        weights.append(numpy_helper.from_array(np.zeros(columns, np.float32), f"b{i}"))
        is_last = i == len(widths) - 1
        nodes.append(
            helper.make_node("Gemm", [value, f"w{i}", f"b{i}"], ["logits" if is_last else f"g{i}"], f"layer{i}")
        )
        if not is_last:
            nodes.append(helper.make_node("Relu", [f"g{i}"], [f"h{i}"]))
            value = f"h{i}"
    graph = helper.make_graph(
        nodes, "mlp", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 28, 28])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 10])], weights,
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


class Experiment(Runs):
    def __init__(self, args):
        folder = args.folder / "smoke" if args.smoke else args.folder
        super().__init__(args.onnxpress, folder, folder / "results" if args.smoke else HERE / "results", args.threads)
        self.args = args
        self.train, self.test = DATA / "mnist_train.npz", DATA / "mnist_test.npz"
        if args.smoke:
            with np.load(self.train) as data:
                self.train = self.folder / "part.npz"
                np.savez(self.train, x=data["x"][:2000], y=data["y"][:2000])

    def run(self, start, options, out, teacher=None, seed=0):
        options = SHARED | options | ({"teacher_cache": self.folder} if teacher else {})
        if self.args.smoke:
            options |= {"epochs": 1, "warmup": 0}
        return self.trained(start, self.train, options, out, teacher, seed)

    def errors(self, model):
        evaluation = self.evaluated(model, self.test, "--input-scale", "1/255")
        return evaluation["positions"] - evaluation["correct"]

    def started(self, kind, seed):
        path = self.folder / f"{kind}-{seed}-start.onnx"
        width = 1200 if kind == "teacher" else 800
        write_net(path, [784, width, width, 10], seed)
        return path

    def teacher(self):
        """Trained again where the model is gone, or the search has chosen other options since."""
        options = self.options("teacher")
        out = self.model_of("teacher.json", options)
        if not out.exists() or self.stored("teacher.json").get("options") != options:
            self.store("teacher.json", self.final("teacher", 0, options, out))
        return out

    def options(self, kind):
        """Of the last training."""
        return COMMON[kind] | self.choice(kind)

    def choice(self, kind):
        """The setting that is best on the held-out images, as the last round has it."""
        kept, rounds = SEARCH[kind]
        teacher = self.choice("teacher") if kind == "soft" else None

        def score(options):
            is_last = options["epochs"] == rounds[-1]["epochs"]
            if kind == "teacher":
                return self.score("soft", JUDGE, teacher=options) if is_last else self.score(kind, options)
            scores = [self.score(kind, options, teacher, start) for start in (STARTS if is_last else STARTS[:1])]
            return [statistics.mean(part) for part in zip(*scores)]

        return training_runs.best_of(GRID[kind], rounds, kept, score) | rounds[-1]

    def score(self, kind, options, teacher=None, start=STARTS[0]):
        """On the held-out images, of a training with these options. A soft student's teacher has not seen these images either."""
        key = options | ({"teacher": teacher} if teacher else {}) | ({"start": start} if start != STARTS[0] else {})

        def train(out):
            return self.search_run(kind, options, out, self.search_teacher(teacher) if teacher else None, start)

        return self.held_out_score(f"search-{kind}.json", key, train)

    def search_run(self, kind, options, out, teacher=None, start=STARTS[0]):
        """Weights to start from are drawn by `start`; which images are held out is the same for all."""
        begin = self.started("teacher" if kind == "teacher" else "student", start)
        return self.run(begin, COMMON[kind] | options | {"hold_out": 1 / 6, "keep_best": "false"}, out, teacher, seed=STARTS[0])

    def search_teacher(self, options):
        out = self.model_of("search-teacher.json", options)
        if not out.exists():
            self.score("teacher", options)
        if not out.exists():  # its figures have come without the model
            self.search_run("teacher", options, out)
        return out

    def search(self):
        for kind in GRID:
            self.options(kind)

    def final(self, kind, seed, options, out, teacher=None):
        """Trains on all images, and counts the errors on the test images."""
        start = self.started("teacher" if kind == "teacher" else "student", seed)
        training, seconds = self.run(start, options | {"hold_out": 0, "keep_best": "false"}, out, teacher, seed)
        return {"options": options, "errors": self.errors(out), "seconds": seconds, "loss": training["epochs"][-1]["loss"]}

    def student(self, kind, seed):
        """What its file has is kept unless the options, or those of the teacher, are others now."""
        name, options = f"{kind}-{seed}.json", self.options(kind)
        teachers = {"teacher": self.options("teacher")} if kind == "soft" else {}
        known = self.stored(name)
        if known.get("options") == options and known.get("teacher") == teachers.get("teacher"):
            return
        teacher = self.teacher() if kind == "soft" else None
        result = self.final(kind, seed, options, self.folder / f"{kind}-{seed}.onnx", teacher)
        self.store(name, result | teachers)

    def table(self):
        teacher = self.stored("teacher.json")
        medians = {}
        print("| network | trained on | test errors of 10,000, by seed | median | CPU minutes each |")
        print("|---|---|---|---|---|")
        if teacher:
            print(
                f"| 784-1200-1200-10 | labels, dropout, jitter | {teacher['errors']} | {teacher['errors']} | {teacher['seconds'] / 60:.1f} |"
            )
        for kind, text in (("hard", "labels"), ("soft", "soft targets, T = 20")):
            runs = [run for seed in self.args.seeds if (run := self.stored(f"{kind}-{seed}.json"))]
            if not runs:
                continue
            medians[kind] = statistics.median(run["errors"] for run in runs)
            minutes = statistics.median(run["seconds"] for run in runs) / 60
            print(
                f"| 784-800-800-10 | {text} | {', '.join(str(run['errors']) for run in runs)} | {medians[kind]:g} | {minutes:.1f} |"
            )
        if teacher and len(medians) == 2:
            closed = (medians["hard"] - medians["soft"]) / (medians["hard"] - teacher["errors"])
            print(f"\nof the gap between student and teacher closed: {closed:.0%}")


def main():
    steps = ("teacher", "search", "hard", "soft", "table")
    options = training_runs.parser(__doc__, steps, "build/distill_mnist")
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    options.add_argument("--smoke", action="store_true")
    args = options.parse_args()
    wanted = training_runs.steps_of(args, steps, options.error)
    experiment = Experiment(args)
    for step in wanted:
        if step in ("hard", "soft"):
            for seed in args.seeds:
                experiment.student(step, seed)
        else:
            getattr(experiment, step)()


if __name__ == "__main__":
    main()
