"""Models of the accuracy benchmarks, and what they are fed: calibration samples and, apart from them, others to judge.

Labelled data is what the models were trained on. Models whose data is not at hand get images of CIFAR-10 enlarged to
their size, chords of decaying tones, random tokens or noise, always by a fixed seed."""

import dataclasses
import pathlib
import subprocess
import tarfile

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper


@dataclasses.dataclass
class Case:
    """`calibration` and `judged`: arrays by input name, the first axis counting samples; `whole` goes to every batch."""

    name: str
    path: pathlib.Path
    calibration: dict
    judged: dict
    labels: np.ndarray | None = None
    has_classes: bool = False  # the first output is scores of classes
    whole: dict = dataclasses.field(default_factory=dict)
    batch_axes: dict = dataclasses.field(default_factory=dict)  # of inputs whose samples are not counted by axis 0

    def feeds(self, arrays, batch):
        """Feeds of `batch` samples each (the last may have fewer)."""
        count = len(next(array for name, array in arrays.items() if name not in self.batch_axes))
        for first in range(0, count, batch):
            rows = range(first, min(first + batch, count))
            yield {name: array.take(rows, self.batch_axes.get(name, 0)) for name, array in arrays.items()} | self.whole


def session(path, threads, emulated=False):
    """ONNX Runtime on the CPU. `emulated`: QuantizeLinear and DequantizeLinear stay apart from float operators."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if emulated:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def one_node(path, op, inputs, outputs, constants=(), **attributes):
    dims = {**inputs, **outputs}
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims[name]) for name in dims]
    node = helper.make_node(op, [*inputs, *(f"constant{i}" if c is not None else "" for i, c in enumerate(constants))],
                            list(outputs), **attributes)
    tensors = [onnx.numpy_helper.from_array(c, f"constant{i}") for i, c in enumerate(constants) if c is not None]
    graph = helper.make_graph([node], op, infos[: len(inputs)], infos[len(inputs) :], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def cifar10(folder, onnxpress, part, work):
    """CIFAR-10 as float32 [N,3,32,32] in [0,1] and labels, decoded by `onnxpress run` on a model that does nothing."""
    images = work / "cifar10_jpeg"
    if not (images / part).exists():
        with tarfile.open(folder / "cifar10_jpeg.tar.xz") as archive:
            wanted = [member for member in archive if member.name.removeprefix("./").startswith(f"{part}/")]
            archive.extractall(images, wanted, filter="data")
    decoded = work / f"cifar10_{part}.npz"
    if not decoded.exists():
        dims = ["N", 3, 32, 32]
        identity = one_node(work / "identity.onnx", "Identity", {"x": dims}, {"same": dims})
        call = [onnxpress, "run", identity, "--input", images / part, "--input-scale", "1/255", "-o", decoded]
        subprocess.run(call, check=True, stdout=subprocess.DEVNULL)
    classes = sorted(path for path in (images / part).iterdir() if path.is_dir())
    labels = np.concatenate([np.full(sum(1 for _ in path.iterdir()), label) for label, path in enumerate(classes)])
    return np.load(decoded)["same"], labels


def mnist(folder, part):
    with np.load(folder / f"mnist_{part}.npz") as data:
        return data["x"].reshape(-1, 1, 28, 28).astype(np.float32) / 255, data["y"]


def enlarged(images, height, width, work):
    """float32 [N,C,H,W] by cubic interpolation."""
    scales = np.array([1, 1, height / images.shape[2], width / images.shape[3]], np.float32)
    dims = ["N", "C", "H", "W"]
    path = one_node(work / "resize.onnx", "Resize", {"x": dims}, {"y": [None] * 4}, (None, scales), mode="cubic")
    return session(path, 1).run(None, {"x": images})[0]


def chords(count, length, rate, seed):
    """float32 [count,length]: one to four decaying tones with overtones, and a little noise."""
    random = np.random.default_rng(seed)
    time = np.arange(length) / rate
    waves = 0.005 * random.standard_normal((count, length))
    for wave in waves:
        for _ in range(random.integers(1, 5)):
            pitch, start = 55 * 2 ** random.uniform(0, 4), random.uniform(0, 0.7) * length / rate
            decay = np.exp(-3 * np.maximum(time - start, 0)) * (time >= start)
            wave += sum(0.2 / k * np.sin(2 * np.pi * k * pitch * time) * decay for k in (1, 2, 3))
    return waves.astype(np.float32)


def spread(arrays, count):
    """`count` samples evenly over the data (a folder sorted by class gives all classes)."""
    total = len(next(iter(arrays.values())))
    rows = np.arange(total) if count >= total else np.arange(count) * total // count
    return {name: array[rows] for name, array in arrays.items()}


def labelled(name, path, train, test, count):
    """A case of arrays (x, y) for the one input of the model."""
    entry = session(path, 1).get_inputs()[0]
    shape = [dim for dim in entry.shape[1:] if isinstance(dim, int)]
    (x, _), (held, y) = train, test

    def shaped(array):
        return {entry.name: array.reshape(len(array), *shape).astype(np.float32)}

    return Case(name, path, spread(shaped(x), count), shaped(held), y, has_classes=True)


def arrays_of(path):
    with np.load(path) as data:
        return data["x"], data["y"]


def noise(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


class Collection:
    """All cases by name; each is made when it is asked for, and images are decoded once."""

    def __init__(self, testdata, models, data, onnxpress, work):
        self.testdata, self.models, self.data, self.onnxpress, self.work = testdata, models, data, onnxpress, work
        self.makers = {}
        for name in ("digits_cnn", "digits_dwcnn", "digits_mlp", "digits_lstm"):
            self.makers[name] = lambda name=name: self.of_files(
                name, testdata / f"{name}.onnx", testdata / "digits", 256)
        for name in ("mnist_lenet5", "mnist_mobile"):
            self.makers[name] = lambda name=name: labelled(
                name, models / "trained" / f"{name}.onnx", self.mnist("train"), self.mnist("test"), 256)
        self.makers["cifar10_cnn"] = lambda: labelled("cifar10_cnn", models / "trained/cifar10_cnn.onnx",
                                                      self.images("train"), self.images("test"), 256)
        families = data / "models/families"
        for name, source in {"lenet5": "digits28", "mlp_mnist": "digits28", "mlp100": "blobs100",
                             "cifar_cnn": "digits32", "mobile_tiny": "digits32"}.items():  # fmt: skip
            self.makers[f"families/{name}"] = lambda name=name, source=source: self.of_files(
                f"families/{name}", families / f"{name}.onnx", families / source, 256)
        self.makers |= {
            "families/vae": lambda: self.unlabelled("families/vae", families / "vae.onnx", families / "digits28"),
            "families/lstm": lambda: Case("families/lstm", families / "lstm.onnx", {"input": noise(1, 64, 50, 100)},
                                          {"input": noise(2, 200, 50, 100)}, has_classes=True),
            "families/speech": lambda: Case("families/speech", families / "speech.onnx",
                                            {"input": noise(1, 32, 1, 161, 100)}, {"input": noise(2, 64, 1, 161, 100)}),
            "face_rfb320": lambda: self.of_images("face_rfb320", data / "models", 240, 320, 127.5 / 128, 0.5),
            "mobilefacenet": lambda: self.of_images("mobilefacenet", data / "models", 112, 112, 127.5 / 128, 0.5),
            "yolo_fastestv2": lambda: self.of_images("yolo_fastestv2", data / "models", 352, 352, 0.5, 0),
            "basic_pitch_nmp": self.basic_pitch,
            "silero_vad_16k_op15": self.silero,
            "resnet50": self.resnet50,
            "bert_base": self.bert,
        }

    def make(self, name):
        return self.makers[name]()

    def mnist(self, part):
        return mnist(self.data / "data", part)

    def images(self, part):
        return cifar10(self.data / "data", self.onnxpress, part, self.work)

    def of_files(self, name, path, stem, count):
        train, test = (arrays_of(f"{stem}_{part}.npz") for part in ("train", "test"))
        return labelled(name, path, train, test, count)

    def unlabelled(self, name, path, stem):
        case = self.of_files(name, path, stem, 256)
        case.labels, case.has_classes = None, False
        return case

    def of_images(self, name, folder, height, width, factor, middle, count=32):
        """Images enlarged, as (x - middle) * 2 * factor for x in [0,1]."""
        path = folder / f"{name}.onnx"
        entry = session(path, 1).get_inputs()[0].name
        images = self.images("test")[0]
        rows = np.arange(2 * count) * len(images) // (2 * count)
        parts = [enlarged(images[rows[first::2]], height, width, self.work) for first in (0, 1)]
        return Case(name, path, *({entry: (part - np.float32(middle)) * np.float32(2 * factor)} for part in parts))

    def resnet50(self):
        case = self.of_images("resnet50", self.models, 224, 224, 2, 0.5)
        case.has_classes = True
        return case

    def basic_pitch(self):
        path = self.data / "models/basic_pitch_nmp.onnx"
        entry = session(path, 1).get_inputs()[0].name
        return Case("basic_pitch_nmp", path, *({entry: chords(16, 43844, 22050, seed)[..., None]} for seed in (1, 2)))

    def silero(self):
        arrays = []
        for seed in (1, 2):
            wave = chords(64, 576, 16000, seed)
            arrays.append({"input": wave, "state": np.zeros((2, len(wave), 128), np.float32)})
        return Case("silero_vad_16k_op15", self.data / "models/silero_vad_16k_op15.onnx", *arrays,
                    whole={"sr": np.array(16000, np.int64)}, batch_axes={"state": 1})

    def bert(self):
        arrays = []
        for seed in (1, 2):
            ids = np.random.default_rng(seed).integers(0, 30522, (16, 64))
            arrays.append({"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)})
        return Case("bert_base", self.models / "bert_base.onnx", *arrays)
