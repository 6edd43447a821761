"""Random models through random pipelines: outputs stay, the size never grows, a second run changes nothing.

The test runs fixed seeds. For more of them:

    ONNXPRESS=build/onnxpress test_random_graphs.py --start 1000 --count 5000 [--keep FOLDER] [--jobs 2] [--passes SPEC]

prints every failure with its pipeline and leaves the model in FOLDER; the status is 1 when there was one.
"""

import argparse
import collections
import concurrent.futures
import dataclasses
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime
from random_graphs import BATCH, OTHER_BATCH, Unsuitable, generate

COUNT = 400
BAR = 1e-4
LIMIT_SECONDS = 120
RUNTIME_IMPORT_BYTES = 24
"""Of the import of com.microsoft, which models of a few hundred bytes may not save."""
RUNS_TO_REST = 5
"""Passes in another order than simplify, fuse may each leave work for one before it, but not for ever."""


@dataclasses.dataclass
class Verdict:
    """What became of one seed."""

    seed: int
    kind: str
    """'good', 'unsuitable' (ONNX Runtime does not run the model, or its values leave sensible ranges), 'runtime' (what was written is
    right without ONNX Runtime's optimizations and wrong with them, or not loaded: its LayerNormalization and Pad fusions misread
    some), or what failed."""
    passes: str = ""
    words: str = ""

    @property
    def failed(self):
        return self.kind not in ("good", "unsuitable", "runtime")


class Failure(Exception):
    """One of the promises was not kept: (kind, words)."""


def passes_of(program):
    """{group pass: its members} and all passes without options that keep outputs, from `onnxpress passes`."""
    listed = json.loads(subprocess.run([program, "passes", "--format", "json"], capture_output=True, check=True).stdout)["passes"]
    groups = {entry["name"]: entry["members"] for entry in listed if entry["members"]}
    return groups, [member for members in groups.values() for member in members]


def random_pipeline(seed, program_passes):
    groups, members = program_passes
    rng = random.Random(seed)
    kind = rng.random()
    if kind < 0.4:
        return "simplify,fuse"
    if kind < 0.55:
        return "simplify,fuse{level=runtime}"
    if kind < 0.65:
        return ",".join(rng.sample(members, rng.choice([1, min(2, len(members))])))
    if kind < 0.7:
        return f"upgrade_opset{{target={rng.choice([17, 18, 20, 21])}}},simplify,fuse"
    steps = []
    for group in rng.choice([("simplify", "fuse"), ("simplify", "fuse"), ("fuse", "simplify"), ("simplify",), ("fuse",)]):
        skipped = [member for member in groups[group] if rng.random() < 0.3]
        options = ([f"skip={';'.join(skipped)}"] if skipped else []) + (["level=runtime"] if group == "fuse" and rng.random() < 0.3 else [])
        steps.append(group + (f"{{{','.join(options)}}}" if options else ""))
    return ",".join(steps)


def open_session(model, optimized):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "0")
    options.intra_op_num_threads = 1
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run(session, feeds):
    return dict(zip([value.name for value in session.get_outputs()], session.run(None, feeds)))


def distance(expected, found):
    """The largest difference over the range of the expected values, over all outputs."""
    worst = 0.0
    for name, reference in expected.items():
        ours = found[name]
        if reference.shape != ours.shape or reference.dtype != ours.dtype:
            raise Failure("type", f"output {name} is {ours.dtype}{ours.shape}, expected {reference.dtype}{reference.shape}")
        a, b = reference.astype(np.float64), ours.astype(np.float64)
        if not a.size or np.array_equal(a, b):
            continue
        spread = max(float(np.ptp(a)), 1e-2 * float(np.abs(a).max()), 1e-6)
        worst = max(worst, float(np.nan_to_num(np.abs(a - b), nan=np.inf).max()) / spread)
    return worst


def conditioning(model, feeds, expected):
    """How much the last bits of inputs and ONNX Runtime's own optimizations change the outputs of the original."""
    rng = np.random.default_rng(0)
    nudged = {name: array * (1 + 1e-6 * rng.standard_normal(array.shape)).astype(array.dtype) if array.dtype == np.float32 else array
              for name, array in feeds.items()}  # fmt: skip
    return max(distance(expected, run(open_session(model, False), nudged)), distance(expected, run(open_session(model, True), feeds)))


def other_batch(feeds):
    """The same inputs with another number of samples."""
    repeats = -(-OTHER_BATCH // BATCH)
    return {name: np.concatenate([array] * repeats)[:OTHER_BATCH] if array.ndim and len(array) == BATCH else array for name, array in feeds.items()}


def check_outputs(original, out, feeds, dynamic):
    """Returns 'good' or 'runtime'."""
    session = open_session(original, False)
    expected = run(session, feeds)
    kind = "good"
    try:
        loaded = open_session(out, True)
    except Exception:  # onnxruntime's exceptions share no other base
        kind = "runtime"
    try:
        loaded = loaded if kind == "good" else open_session(out, False)
    except Exception as error:
        raise Failure("load", str(error)[:400]) from error
    cases = [(feeds, expected)]
    if dynamic:
        try:
            cases.append((other_batch(feeds), run(session, other_batch(feeds))))
        except Exception:  # noqa: S110 (a model that bakes the batch in)
            pass
    for inputs, reference in cases:
        try:
            found = run(loaded, inputs)
        except Exception as error:
            raise Failure("run", str(error)[:400]) from error
        error = distance(reference, found)
        if error > BAR and error > 4 * conditioning(original, inputs, reference):
            if distance(reference, run(open_session(out, False), inputs)) > BAR:
                raise Failure("outputs", f"differ by {error:.1e}")
            kind = "runtime"
    return kind


def check_interface(before, after):
    constants = {tensor.name for tensor in before.graph.initializer}
    required = [value for value in before.graph.input if value.name not in constants]
    if [(value.name, value.type.tensor_type.elem_type) for value in after.graph.input] != [(v.name, v.type.tensor_type.elem_type) for v in required]:
        raise Failure("interface", "the inputs changed")
    if [value.name for value in before.graph.output] != [value.name for value in after.graph.output]:
        raise Failure("interface", "the outputs changed")
    for old, new in zip(before.graph.output, after.graph.output):
        if old.type != new.type:
            raise Failure("interface", f"output {old.name} is declared {new.type}, expected {old.type}")


def compress(program, model, out, passes):
    command = [program, "compress", model, "-o", out, "--passes", passes, "--deflated", "off", "--threads", "1", "--report", f"{out}.json", "--quiet"]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=LIMIT_SECONDS, check=False)
    except subprocess.TimeoutExpired as late:
        raise Failure("time", f"no end after {LIMIT_SECONDS} s") from late
    if ran.returncode == 1:
        report = json.loads(pathlib.Path(f"{out}.json").read_text())
        raise Failure("rolled back", "; ".join(f"{entry['pass']}: {entry['failure']}" for entry in report["passes"] if entry["rolled_back"])[:400])
    if ran.returncode != 0:
        raise Failure(f"status {ran.returncode}", ran.stderr.strip()[-400:])


def check_model(program, model, feeds, passes, folder):
    """'good' or 'runtime'; raises Failure when a promise is not kept for this model (a ModelProto)."""
    source, out, again = (folder / name for name in ("model.onnx", "out.onnx", "again.onnx"))
    original = model.SerializeToString()
    source.write_bytes(original)
    compress(program, source, out, passes)
    written = out.read_bytes()
    after = onnx.load_from_string(written)
    try:
        # ONNX Runtime has this one in the domain of ai.onnx, where the checker does not know it.
        if all(node.op_type != "SimplifiedLayerNormalization" for node in after.graph.node):
            onnx.checker.check_model(after, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise Failure("checker", str(error)[:400]) from error
    check_interface(model, after)
    dynamic = any(dim.HasField("dim_param") for value in model.graph.input for dim in value.type.tensor_type.shape.dim)
    kind = check_outputs(original, written, feeds, dynamic)
    if len(written) > len(original) + (RUNTIME_IMPORT_BYTES if "runtime" in passes else 0):
        raise Failure("size", f"{len(written)} bytes, from {len(original)}")
    rests = passes.startswith(("simplify,", "simplify{")) or passes == "simplify"
    for _ in range(1 if rests else RUNS_TO_REST):
        compress(program, out, again, passes)
        if again.read_bytes() == out.read_bytes():
            return kind
        difference = changes(out, again)
        out.write_bytes(again.read_bytes())
    raise Failure("second run", f"changes the model: {difference}")


def changes(first, second):
    """What became more and less, for people."""
    counts = [collections.Counter(node.op_type for node in onnx.load(path).graph.node) for path in (first, second)]
    return f"less {dict(counts[0] - counts[1])}, more {dict(counts[1] - counts[0])}"


def suitable(model, feeds):
    """Whether the checker and ONNX Runtime, with its optimizations and without, take the model, with finite outputs of sensible size."""
    try:
        onnx.checker.check_model(model, full_check=True)
        outputs = run(open_session(model.SerializeToString(), False), feeds)
        run(open_session(model.SerializeToString(), True), feeds)
    except Exception:  # whatever is wrong with it
        return False
    return all(np.isfinite(array).all() and np.abs(array.astype(np.float64)).max(initial=0) < 1e4 for array in outputs.values())


def check_seed(seed, program, program_passes, keep=None, passes=None):
    passes = passes or random_pipeline(seed, program_passes)
    try:
        model, feeds = generate(seed)
    except Unsuitable:
        return Verdict(seed, "unsuitable")
    if not suitable(model, feeds):
        return Verdict(seed, "unsuitable")
    with tempfile.TemporaryDirectory() as folder:
        try:
            return Verdict(seed, check_model(program, model, feeds, passes, pathlib.Path(folder)), passes)
        except Failure as failure:
            if keep:
                keep.mkdir(parents=True, exist_ok=True)
                onnx.save(model, keep / f"seed{seed}.onnx")
                np.savez(keep / f"seed{seed}.npz", **feeds)
            return Verdict(seed, failure.args[0], passes, failure.args[1])


def check_seeds(seeds, program, jobs=2, **options):
    """Verdicts as they come."""
    program_passes = passes_of(program)
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(lambda seed: check_seed(seed, program, program_passes, **options), seeds)


def test_random_models(tmp_path):
    verdicts = list(check_seeds(range(COUNT), os.environ["ONNXPRESS"], keep=tmp_path))
    failed = [f"seed {verdict.seed}, {verdict.passes}: {verdict.kind}: {verdict.words}" for verdict in verdicts if verdict.failed]
    assert not failed, f"models are in {tmp_path}\n" + "\n".join(failed)
    assert sum(verdict.kind == "good" for verdict in verdicts) > 0.85 * len(verdicts)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--keep", type=pathlib.Path, help="where models that fail are left")
    parser.add_argument("--passes", help="this pipeline instead of random ones")
    arguments = parser.parse_args()
    counts = collections.Counter()
    seeds = range(arguments.start, arguments.start + arguments.count)
    for verdict in check_seeds(seeds, os.environ["ONNXPRESS"], arguments.jobs, keep=arguments.keep, passes=arguments.passes):
        counts[verdict.kind] += 1
        if verdict.failed:
            print(f"seed {verdict.seed}: {verdict.kind}: --passes '{verdict.passes}': {verdict.words}", flush=True)
    print(", ".join(f"{kind}: {count}" for kind, count in counts.most_common()))
    return 0 if set(counts) <= {"good", "runtime", "unsuitable"} else 1


if __name__ == "__main__":
    sys.exit(main())
