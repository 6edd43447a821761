"""The programs that are compared, run as a user runs them: each call is a new process."""

import dataclasses
import json
import pathlib
import subprocess
import sys
import tempfile

ONNX_RUNTIME = """
import sys, onnxruntime as ort
options = ort.SessionOptions()
options.log_severity_level = 4
options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
options.optimized_model_filepath = sys.argv[2]
ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
"""

MEASURE = """
import json, os, sys, time
start = time.monotonic()
child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(child, 0)
with open(3, "w") as result:
    json.dump([os.waitstatus_to_exitcode(status), time.monotonic() - start, usage.ru_maxrss * 1024], result)
"""
"""A process inherits the peak memory of the one that started it, so a small one starts the program."""

LIMIT_SECONDS = 900


@dataclasses.dataclass(frozen=True)
class Tool:
    """`command` is the program and its arguments; IN and OUT stand for the files."""

    name: str
    command: tuple[str, ...]
    rival: str
    """Which of our columns it is held against: 'standard' (its operators are in ONNX), 'runtime', or '' for ours."""


@dataclasses.dataclass
class Call:
    """One run of a tool."""

    failure: str
    seconds: float = 0.0
    peak_bytes: int = 0


def tools(onnxpress):
    python = sys.executable
    return [
        Tool("onnxpress", (onnxpress, "compress", "IN", "-o", "OUT", "--preset", "lossless", "--quiet"), ""),
        Tool("onnxpress runtime", (onnxpress, "compress", "IN", "-o", "OUT", "--passes", "simplify,fuse{level=runtime}", "--quiet"), ""),
        Tool("onnxsim", (python, "-m", "onnxsim", "IN", "OUT"), "standard"),
        Tool("onnxslim", (python, "-m", "onnxslim", "IN", "OUT"), "standard"),
        Tool("onnxoptimizer", (python, "-m", "onnxoptimizer", "IN", "OUT", "--fixed_point"), "standard"),
        Tool("ONNX Runtime extended", (python, "-c", ONNX_RUNTIME, "IN", "OUT"), "runtime"),
    ]


def bare_size(onnxpress, model):
    """Bytes without doc strings, metadata, producer and declared types of interior values; None where they cannot be dropped."""
    strip = "strip_documentation{metadata=true,producer=true,types=true}"
    with tempfile.TemporaryDirectory() as folder:
        command = [onnxpress, "compress", str(model), "-o", f"{folder}/bare.onnx", "--passes", strip, "--quiet"]
        if subprocess.run(command, capture_output=True, check=False).returncode != 0:
            return None
        return sum(file.stat().st_size for file in pathlib.Path(folder).iterdir())


def call(tool, model, out):
    """Runs the tool in the folder of `out`, which is gone when the tool failed."""
    command = [str({"IN": model, "OUT": out}.get(part, part)) for part in tool.command]
    read, write = subprocess.os.pipe()
    try:
        ran = subprocess.run(
            ["/bin/sh", "-c", f'exec "$@" 3>&{write}', "sh", sys.executable, "-I", "-S", "-c", MEASURE, *command],
            cwd=out.parent, capture_output=True, text=True, errors="replace", pass_fds=(write,), timeout=LIMIT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return Call(f"no end after {LIMIT_SECONDS} s")
    finally:
        subprocess.os.close(write)
        with open(read, encoding="ascii") as pipe:
            measured = pipe.read()
    if not measured:
        return Call(f"status {ran.returncode}")
    status, seconds, peak = json.loads(measured)
    if status != 0 or not out.exists():
        words = [line.strip() for line in (ran.stderr + ran.stdout).splitlines() if line.strip()]
        wrong = [line for line in words if "error" in line.lower() or "exception" in line.lower()] or words or [""]
        out.unlink(missing_ok=True)
        return Call(f"status {status}: {wrong[-1][:120]}", seconds, peak)
    return Call("", seconds, peak)
