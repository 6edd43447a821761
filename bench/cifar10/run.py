"""A CNN on CIFAR-10: trained by onnxpress and by PyTorch with one recipe, and a quarter of it with and without a teacher.

    run.py [STEP ...] [--onnxpress build/onnxpress] [--folder build/cifar10] [--seeds 0 1 2] [--threads 2]

Conv 32-64-128, Dense 128-10 is exported by PyTorch without training and trained from the same weights on both sides: SGD
with momentum, a rate along a cosine, weight decay, images mirrored and shifted (RECIPE). The student has half of the
channels, a quarter of the weights; its teacher is the mean of the CNNs that onnxpress trained. Steps, all of them unless
some are named: `cnn`, `pytorch` (one training a seed each), `search` (the students' options on nine tenths of the training
images, judged on the others, the best four for longer), `hard`, `soft` (one student a seed), `table`. The test images are
looked at by nothing but the last evaluation of a trained model.

Results go to results/ beside this script: search-KIND.json and one seed-N.json for each seed. What a file has is not
computed again (but for students whose options the search has changed), so that an interrupted run goes on, and parts may
run side by side. Data and models are kept in --folder. Needs torch and Pillow.
"""

import os
import pathlib
import statistics
import sys
import tarfile
import time

import torch
from torch import nn

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import training_runs  # noqa: E402
from maker import trained  # noqa: E402
from training_runs import Runs  # noqa: E402

DATA = pathlib.Path(os.environ.get("ONNXPRESS_DATA", HERE.parents[1] / ".." / "shared")) / "data"
MEAN, DEVIATION = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
"""Of the training images' pixels, in 0 to 1."""
BATCH, EPOCHS, RATE, DECAY, SHIFT, MOMENTUM = 128, 20, 0.05, 5e-4, 4, 0.9
TEACHERS = (0, 1, 2)
"""Seeds of the networks that teach together."""
SEARCH = ({"epochs": 10}, {"epochs": EPOCHS})
"""What the trainings of each round of the search have instead: all settings in the first, the best four in the next."""
PREPROCESSING = {
    "input_scale": "1/255",
    "input_mean": ",".join(map(str, MEAN)),
    "input_std": ",".join(map(str, DEVIATION)),
}
RECIPE = PREPROCESSING | {
    "batch_size": BATCH,
    "epochs": EPOCHS,
    "optimizer": "momentum",
    "momentum": MOMENTUM,
    "learning_rate": RATE,
    "schedule": "cosine",
    "l2": DECAY,
    "augment": f"flip=horizontal,shift={SHIFT}",
    "hold_out": 0,
    "keep_best": "false",
}
GRID = {
    "hard": [{"learning_rate": rate, "l2": decay} for rate in (0.05, 0.1) for decay in (0, DECAY)]
    + [{"learning_rate": rate, "l2": DECAY, "warmup": 1} for rate in (0.02, 0.05)]
    + [{"learning_rate": 0.05, "l2": decay} for decay in (2 * DECAY, 4 * DECAY, 8 * DECAY)],
    "soft": [
        {"learning_rate": rate, "l2": 0, "temperature": temperature, "alpha": 0.9}
        for rate in (0.02, 0.05)
        for temperature in (2, 4)
    ]
    + [
        {"learning_rate": rate, "l2": decay, "warmup": 1, "temperature": temperature, "alpha": 0.9}
        for rate, temperature, decay in (
            (0.01, 4, DECAY), (0.02, 4, DECAY), (0.05, 4, DECAY), (0.02, 2, DECAY), (0.05, 2, DECAY), (0.1, 2, DECAY),
            (0.05, 2, 2 * DECAY), (0.05, 2, 4 * DECAY),
        )
    ],
}
"""With the factor T^2, soft gradients are larger than hard ones: they need a warm-up."""


class Cnn(nn.Sequential):
    """[N,3,32,32] to 10 classes; `width` channels, then twice and four times as many."""

    def __init__(self, width):
        layers = []
        for inputs, outputs in ((3, width), (width, 2 * width), (2 * width, 4 * width)):
            layers += [nn.Conv2d(inputs, outputs, 3), nn.ReLU(), nn.MaxPool2d(2)]
        super().__init__(*layers, nn.Flatten(), nn.Linear(16 * width, 4 * width), nn.ReLU(), nn.Linear(4 * width, 10))


def made(width, seed):
    torch.manual_seed(seed)
    return Cnn(width)


def export(net, path):
    axes = {name: {0: "batch"} for name in ("input", "output")}
    torch.onnx.export(
        net.eval(), torch.zeros(1, 3, 32, 32), path, dynamo=False, opset_version=17, input_names=["input"],
        output_names=["output"], dynamic_axes=axes, training=torch.onnx.TrainingMode.PRESERVE,
    )  # fmt: skip
    return path


def jittered(images, draw):
    """Mirrored with probability 1/2, then moved by up to SHIFT pixels along both axes; zeros come in."""
    flipped = torch.where(torch.rand(len(images), 1, 1, 1, generator=draw) < 0.5, images.flip(3), images)
    padded = nn.functional.pad(flipped, [SHIFT] * 4)
    rows, columns = (torch.randint(2 * SHIFT + 1, (len(images), 1), generator=draw) + torch.arange(32) for _ in range(2))
    return padded[torch.arange(len(images))[:, None, None, None], torch.arange(3)[:, None, None], rows[:, None, :, None],
                  columns[:, None, None, :]]  # fmt: skip


def normalized(images):
    shape = (1, 3, 1, 1)
    return (images.float() / 255 - torch.tensor(MEAN).view(shape)) / torch.tensor(DEVIATION).view(shape)


def train_in_pytorch(net, data, seed):
    """The mean loss of the last epoch."""
    images, labels = (torch.from_numpy(array) for array in data)
    draw = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(net.parameters(), RATE, momentum=MOMENTUM, weight_decay=DECAY)
    steps = -(-len(images) // BATCH) * EPOCHS
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    net.train()
    for epoch in range(EPOCHS):
        total = 0.0
        for chosen in torch.randperm(len(images), generator=draw).split(BATCH):
            loss = nn.functional.cross_entropy(net(jittered(normalized(images[chosen]), draw)), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rate.step()
            total += loss.item() * len(chosen)
        print(f"PyTorch, seed {seed}: epoch {epoch + 1} of {EPOCHS}, loss {total / len(images):.4f}", file=sys.stderr)
    return total / len(images)


def accuracy_in_pytorch(net, data):
    net.eval()
    with torch.no_grad():
        scores = torch.cat([net(normalized(chunk)) for chunk in torch.from_numpy(data[0]).split(500)])
    return float((scores.argmax(1) == torch.from_numpy(data[1])).float().mean())


class Experiment(Runs):
    def __init__(self, args):
        super().__init__(args.onnxpress, args.folder, HERE / "results", args.threads)
        self.seeds, self.data = args.seeds, self.folder / "data"
        if not self.data.exists():
            partly = self.folder / "data.partly"
            with tarfile.open(DATA / "cifar10_jpeg.tar.xz") as archive:
                archive.extractall(partly, filter="data")
            partly.rename(self.data)

    def run(self, start, options, out, teacher=None, seed=0):
        return self.trained(start, self.data / "train", RECIPE | options, out, teacher, seed)

    def accuracy(self, model):
        flags = [part for key, value in PREPROCESSING.items() for part in (f"--{key.replace('_', '-')}", value)]
        evaluation = self.evaluated(model, self.data / "test", *flags)
        return evaluation["correct"] / evaluation["positions"]

    def once(self, kind, seed, compute, again=False):
        """Stores what `compute` gives (accuracy and more) as the seed's result of this kind, unless it is there or `again`."""
        name = f"seed-{seed}.json"
        if not again and kind in self.stored(name):
            return
        found = compute()
        self.store(name, self.stored(name) | {kind: found})

    def trained_by_onnxpress(self, kind, width, seed, options, teacher=None):
        out = self.folder / f"{kind}-{seed}.onnx"
        training, seconds = self.run(export(made(width, seed), self.folder / f"start-{kind}-{seed}.onnx"), options, out, teacher, seed)
        return {"options": options, "accuracy": self.accuracy(out), "loss": training["epochs"][-1]["loss"], "seconds": seconds}

    def cnn(self, seeds=None):
        for seed in seeds or self.seeds:
            self.once("onnxpress", seed, lambda seed=seed: self.trained_by_onnxpress("onnxpress", 32, seed, {}))

    def pytorch(self):
        torch.set_num_threads(self.threads)
        data = None

        def compute(seed):
            nonlocal data
            data = data or {part: trained.cifar10(DATA, part) for part in ("train", "test")}
            net, began = made(32, seed), time.process_time()
            loss = train_in_pytorch(net, data["train"], seed)
            seconds = round(time.process_time() - began, 1)
            return {"accuracy": accuracy_in_pytorch(net, data["test"]), "loss": loss, "seconds": seconds}

        for seed in self.seeds:
            self.once("pytorch", seed, lambda seed=seed: compute(seed))

    def teacher(self):
        """The CNNs that onnxpress trained: their soft targets are averaged. Results may have come without the models: then
        these are trained again, to results of their own."""
        self.cnn(TEACHERS)
        paths = []
        for seed in TEACHERS:
            path = self.folder / f"onnxpress-{seed}.onnx"
            if not path.exists():
                path = self.folder / f"teacher-{seed}.onnx"
                self.once(
                    "teacher", seed, lambda seed=seed: self.trained_by_onnxpress("teacher", 32, seed, {}), again=not path.exists()
                )
            paths.append(str(path))
        return ",".join(paths)

    def best(self, kind):
        """The setting with the best held-out accuracy at the last epoch."""

        def score(options):
            def train(out):
                teacher = self.teacher() if kind == "soft" else None
                start = export(made(16, 100), out.with_suffix(".start.onnx"))
                return self.run(start, options | {"hold_out": 0.1}, out, teacher, seed=100)

            return self.held_out_score(f"search-{kind}.json", options, train)

        return training_runs.best_of(GRID[kind], SEARCH, 4, score)

    def search(self):
        for kind in GRID:
            self.best(kind)

    def students(self, kind):
        options = self.best(kind)
        for seed in self.seeds:
            known = self.stored(f"seed-{seed}.json").get(kind, {})
            self.once(
                kind, seed,
                lambda seed=seed: self.trained_by_onnxpress(kind, 16, seed, options, self.teacher() if kind == "soft" else None),
                again=known.get("options") != options,
            )  # fmt: skip

    def hard(self):
        self.students("hard")

    def soft(self):
        self.students("soft")

    def table(self):
        print("| network | trained by | test accuracy, %, by seed | mean | CPU minutes each |")
        print("|---|---|---|---|---|")
        rows = {
            "pytorch": ("32-64-128", "PyTorch"),
            "onnxpress": ("32-64-128", "onnxpress"),
            "teacher": ("32-64-128", "onnxpress, again, as teachers"),
            "hard": ("16-32-64", "onnxpress, labels"),
            "soft": ("16-32-64", "onnxpress, labels and teachers"),
        }
        results, means = [self.stored(f"seed-{seed}.json") for seed in self.seeds], {}
        for kind, (net, text) in rows.items():
            runs = [result[kind] for result in results if kind in result]
            if not runs:
                continue
            means[kind] = 100 * statistics.mean(run["accuracy"] for run in runs)
            minutes = statistics.median(run["seconds"] for run in runs) / 60
            accuracies = ", ".join(f"{100 * run['accuracy']:.2f}" for run in runs)
            print(f"| {net} | {text} | {accuracies} | {means[kind]:.2f} | {minutes:.1f} |")
        for text, ours, other in (("onnxpress over PyTorch", "onnxpress", "pytorch"), ("distillation over labels alone", "soft", "hard")):
            if ours in means and other in means:
                print(f"\n{text}: {means[ours] - means[other]:+.2f} points")


def main():
    steps = ("cnn", "pytorch", "search", "hard", "soft", "table")
    options = training_runs.parser(__doc__, steps, "build/cifar10")
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = options.parse_args()
    experiment = Experiment(args)
    for step in training_runs.steps_of(args, steps, options.error):
        getattr(experiment, step)()


if __name__ == "__main__":
    main()
