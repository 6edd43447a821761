"""Reads and writes a 438 MB model and compares with `cp IN OUT && sync OUT`, in turn, in one run.

    read_write.py --onnxpress build/onnxpress --roundtrip build/tests/onnxpress_roundtrip [--runs 7] [--folder DIR]

Prints, inline and with external data, the medians, the ratio pair by pair (its median is the figure;
the aim is at most 1.5) and the peak of anonymous memory (RssAnon, sampled every 5 ms; aim: under 100 MB).
`read+write` is the test program that reads and writes; `compress` is the command with an empty pipeline.
"""

import argparse
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent


def anonymous_bytes(pid):
    try:
        for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def timed(command):
    """Seconds and peak anonymous bytes of a command that must succeed."""
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        peak = 0
        while process.poll() is None:
            peak = max(peak, anonymous_bytes(process.pid))
            time.sleep(0.005)
        seconds = time.perf_counter() - start
        if process.returncode != 0:
            sys.exit(f"{command}: {process.stderr.read().decode()}")
    return seconds, peak


def clear(folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--onnxpress", type=pathlib.Path, required=True)
    parser.add_argument("--roundtrip", type=pathlib.Path, required=True)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--folder", type=pathlib.Path, help="where the models are made (default: a temporary folder)")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        root = pathlib.Path(temporary)
        print("| model | program | cp && sync, s | program, s | ratio | peak anonymous, MB |")
        print("|---|---|---|---|---|---|")
        for form in ("inline", "external"):
            source = root / form
            source.mkdir()
            model = source / "bert_sized.onnx"
            flags = ["--external"] if form == "external" else []
            subprocess.run([sys.executable, HERE / "make_models.py", "bert_sized", "--folder", source, *flags], check=True,
                           stdout=subprocess.DEVNULL)  # fmt: skip
            subprocess.run(["sync"], check=True)
            out = root / "out"
            programs = {
                "read+write": [arguments.roundtrip, model, out / "model.onnx"],
                "compress": [arguments.onnxpress, "compress", model, "-o", out / "model.onnx", "--passes", "", "--quiet"],
            }
            copy = ["sh", "-c", 'cp "$1"/* "$2" && sync "$2"/*', "sh", str(source), str(out)]
            for name, program in programs.items():
                pairs = []
                for run in range(arguments.runs + 1):  # the first warms the page cache
                    clear(out)
                    base, _ = timed(copy)
                    clear(out)
                    seconds, peak = timed([str(part) for part in program])
                    if run > 0:
                        pairs.append((base, seconds, peak))
                ratio = statistics.median(seconds / base for base, seconds, _ in pairs)
                print(f"| {form} | {name} | {statistics.median(p[0] for p in pairs):.2f} | {statistics.median(p[1] for p in pairs):.2f}"
                      f" | {ratio:.2f} | {max(p[2] for p in pairs) / 1e6:.1f} |")


if __name__ == "__main__":
    main()
