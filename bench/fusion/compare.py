"""onnxpress beside onnxsim, OnnxSlim, onnxoptimizer and ONNX Runtime's extended offline optimizer; prints Markdown.

    compare.py --onnxpress build/onnxpress --engine build/bench/bench_engine [--models build/bench-models]
               [--only PATTERN ...] [--quick] [--runs 3] [--turns 11] [--json FILE]

Takes every model under $ONNXPRESS_DATA/models (default ../shared), in testdata/, those that bench/make_models.py made, and the
light models of the ONNX backend tests. All tools get the same file, each call in a new process. Per model and tool:

  operators   after inlining functions, subgraphs included, Constant not counted; operators of other domains than ONNX's
              are the second number
  bytes       with external data
  bare        bytes after `onnxpress compress --passes 'strip_documentation{metadata=true,producer=true,types=true}'`, done to
              the outputs of all tools alike: onnxpress keeps an exporter's metadata by default, others drop it
  equal       the largest difference of the outputs from the original's in ONNX Runtime over the output's range, on 16 inputs
              within what the consumers allow; the bar is 1e-4, or twice what ONNX Runtime's own optimizations change
  latency     of the outputs in ONNX Runtime, one thread, measured in turns, median
  wall, peak  seconds and peak resident memory of the tool, median of the runs

--quick leaves out latency and further runs. --only takes globs of the names in the tables. The summary lists where a peer has
fewer operators or bytes. The exit status is 1 when our outputs are not equal.
"""

import argparse
import dataclasses
import fnmatch
import json
import pathlib
import statistics
import sys
import tempfile

import models
import outputs
import tools
from summary import print_summary

INPUTS = 16


@dataclasses.dataclass
class Result:
    """What one tool made of one model; figures that were not taken are None."""

    tool: str
    failure: str = ""
    operators: dict = dataclasses.field(default_factory=dict)
    bytes: int | None = None
    bare_bytes: int | None = None
    error: float | None = None
    equal: bool = False
    latency: float | None = None
    seconds: float | None = None
    peak_bytes: float | None = None

    def standard(self):
        return sum(count for name, count in self.operators.items() if models.is_standard(name))

    def other(self):
        return sum(self.operators.values()) - self.standard()


def judge(onnxpress, result, out, references, feeds, bar):
    """Fills in what the file alone tells; returns its session, or None."""
    try:
        result.operators = models.operators(out)
        result.bytes = models.size(out)
        result.bare_bytes = tools.bare_size(onnxpress, out)
        opened = outputs.open_or_say(out)
        result.error = outputs.difference(references, [outputs.run(opened, feed) for feed in feeds])
        result.equal = result.error <= bar
        return opened
    except ValueError as failure:
        result.failure = str(failure)
        return None


def measure(arguments, model, programs, folder):
    """Results by tool, the original's first, for one model."""
    original = Result("original")
    feeds = models.inputs(arguments.engine, model, INPUTS, folder)
    opened = outputs.open_or_say(model)
    references = [outputs.run(opened, feed) for feed in feeds]
    plain = outputs.open_or_say(model, optimized=False)
    own = outputs.difference(references, [outputs.run(plain, feed) for feed in feeds])
    del plain
    bar = max(outputs.BAR, outputs.OWN_FACTOR * own)
    onnxpress = str(arguments.onnxpress.resolve())
    sessions = {"original": judge(onnxpress, original, model, references, feeds, bar)}
    results = [original, *(Result(tool.name) for tool in programs)]

    calls = {tool.name: [] for tool in programs}
    for turn in range(1 if arguments.quick else arguments.runs):
        for tool in programs if turn % 2 == 0 else reversed(programs):
            if calls[tool.name] and calls[tool.name][0].failure:
                continue
            place = folder / tool.name.replace(" ", "-") / str(turn)
            place.mkdir(parents=True)
            calls[tool.name].append(tools.call(tool, model, place / "out.onnx"))
    for tool, result in zip(programs, results[1:]):
        first = calls[tool.name][0]
        result.failure = first.failure
        if not first.failure:
            result.seconds = statistics.median(call.seconds for call in calls[tool.name])
            result.peak_bytes = statistics.median(call.peak_bytes for call in calls[tool.name])
            out = folder / tool.name.replace(" ", "-") / "0" / "out.onnx"
            sessions[tool.name] = judge(onnxpress, result, out, references, feeds, bar)
    if not arguments.quick:
        sessions = {name: session for name, session in sessions.items() if session is not None}
        times = outputs.latencies(sessions, feeds[0], arguments.turns)
        for result in results:
            result.latency = times.get(result.tool)
    return results


def print_table(name, results):
    print(f"\n### {name}\n\n| tool | operators | bytes | bare | equal | latency, ms | wall, s | peak, MB |\n|---|---|---|---|---|---|---|---|")
    for result in results:
        if result.failure:
            print(f"| {result.tool} | {result.failure.replace('|', ' ')} | | | | | | |")
            continue
        cells = [result.tool, f"{result.standard()}" + (f" + {result.other()}" if result.other() else ""), f"{result.bytes:,}",
                 "" if result.bare_bytes is None else f"{result.bare_bytes:,}",
                 f"{'yes' if result.equal else 'NO'} ({result.error:.1e})"]  # fmt: skip
        for value, scale, digits in ((result.latency, 1e3, 3), (result.seconds, 1, 2), (result.peak_bytes, 1e-6, 0)):
            cells.append("" if value is None else f"{value * scale:.{digits}f}")
        print(f"| {' | '.join(cells)} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--onnxpress", required=True, type=pathlib.Path)
    parser.add_argument("--engine", required=True, type=pathlib.Path, help="bench_engine: makes the inputs")
    parser.add_argument("--models", type=pathlib.Path, default=pathlib.Path("build/bench-models"))
    parser.add_argument("--only", nargs="+", default=["*"], metavar="PATTERN")
    parser.add_argument("--quick", action="store_true", help="operators, bytes and equality only")
    parser.add_argument("--runs", type=int, default=3, help="calls of every tool")
    parser.add_argument("--turns", type=int, default=11, help="latency measurements of every output")
    parser.add_argument("--json", type=pathlib.Path, help="keep all figures here")
    arguments = parser.parse_args()
    found = {name: path for name, path in models.find(arguments.models).items()
             if any(fnmatch.fnmatch(name, pattern) for pattern in arguments.only)}  # fmt: skip
    if not found:
        parser.error("no models")

    programs = tools.tools(str(arguments.onnxpress.resolve()))
    everything = {}
    for name, model in found.items():
        with tempfile.TemporaryDirectory() as folder:
            try:
                everything[name] = measure(arguments, model, programs, pathlib.Path(folder))
            except ValueError as failure:
                everything[name] = [Result("original", failure=str(failure))]
        print_table(name, everything[name])
        if arguments.json:
            arguments.json.write_text(json.dumps({model: [dataclasses.asdict(result) for result in results]
                                                  for model, results in everything.items()}, indent=1))  # fmt: skip
    print_summary(everything, programs)
    ours = [result for results in everything.values() for result in results if result.tool == programs[0].name]
    return 0 if ours and all(result.equal for result in ours) else 1


if __name__ == "__main__":
    sys.exit(main())
