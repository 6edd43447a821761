"""Which models are compared, and their inputs."""

import pathlib
import subprocess
import sys

import onnx
from onnx import numpy_helper

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))

from real_models import DATA, make_inputs  # noqa: E402

LIGHT = (pathlib.Path("/usr/share/libonnx-testdata"), pathlib.Path(onnx.__file__).parent / "backend/test/data")
"""Where the light models of the ONNX backend tests may be: Debian's libonnx-testdata (not in Debian 12), the onnx package."""


def find(bench_models):
    """{"folder/stem": path}, sorted."""
    files = [*(DATA / "models").rglob("*.onnx"), *(ROOT / "testdata").glob("*.onnx"), *bench_models.glob("*.onnx")]
    files = [file for file in files if file.stem != "bert_sized"]
    for folder in LIGHT:
        if light := sorted(folder.rglob("light_*.onnx")):
            files += light
            break
    return {f"{file.parent.name}/{file.stem}": file.resolve() for file in sorted(files, key=lambda file: (file.parent.name, file.stem))}


def inputs(engine, model, count, folder):
    """`count` sets of arrays by name, within what the consumers of each input allow, batches of 1 to 3 where it is open."""
    sets = []
    for seed in range(count):
        try:
            sets.append(make_inputs(engine, model, seed, folder / f"inputs{seed}"))
        except subprocess.CalledProcessError as failure:
            raise ValueError(f"no inputs: {failure.stderr.strip()[-200:]}") from failure
    return sets


def size(model):
    """Bytes of the file and of its external data."""
    proto = onnx.load(model, load_external_data=False)
    return model.stat().st_size + sum((model.parent / name).stat().st_size for name in external_files(proto.graph))


def external_files(graph):
    names = {entry.value for tensor in graph.initializer for entry in tensor.external_data if entry.key == "location"}
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                names |= external_files(inner)
    return names


def operators(model):
    """{operator: count} after inlining functions, subgraphs included, Constant left out; other domains as 'domain.Operator'."""
    proto = onnx.load(model, load_external_data=False)
    if proto.functions:
        proto = onnx.inliner.inline_local_functions(proto)
    counts = {}
    graphs = [proto.graph]
    while graphs:
        for node in graphs.pop().node:
            if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
                continue
            name = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
            counts[name] = counts.get(name, 0) + 1
            for attribute in node.attribute:
                graphs += [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]
    return counts


def is_standard(operator):
    return "." not in operator
