"""Speed and memory of training against PyTorch, side by side in one run; prints Markdown.

    speed.py --bench build/bench/bench_train [--only NAME ...] [--optimizers momentum adam] [--threads 2]
             [--rounds 5] [--seconds 2] [--json FILE]

Both programs train the same network from the same weights on the same batches, which are in memory: forward, loss,
backward, update. They stay loaded and are measured in turns, pinned to as many CPUs as they have threads. Rates are
medians over the rounds; that the losses of the first steps are equal is checked.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from cases import CASES  # noqa: E402
from peer import RATES, WARM_UP  # noqa: E402
from turns import Program, cpu_list, geometric_mean, take_turns  # noqa: E402

SAME = 2e-3
"""Relative difference of the losses after WARM_UP steps: rounding, which training magnifies. With Adam that is compared after the
first update only: it divides gradients that are almost 0 by their own size (compare.py has whole curves in float64)."""


def measure(arguments, folder, name, optimizer):
    case, threads, seconds = CASES[name], arguments.threads, arguments.seconds
    ours = [arguments.bench, folder / f"{name}.onnx", folder / f"{name}.npz", *case.loss_arguments(),
            "--optimizer", optimizer, "--rate", RATES[optimizer], "--batch", case.batch, "--threads", threads,
            "--steps", WARM_UP, "--serve", seconds]  # fmt: skip
    if case.teacher is not None:
        ours += ["--teacher", folder / f"{name}_teacher.onnx"]
    theirs = [sys.executable, HERE / "peer.py", name, optimizer, threads, seconds]
    cpus = cpu_list(threads)
    results = take_turns([lambda: Program(ours, cpus), lambda: Program(theirs, cpus)], arguments.rounds)
    row = dict(zip(("ours", "theirs"), results))
    compared = 2 if optimizer == "adam" else WARM_UP
    for mine, expected in list(zip(row["ours"]["losses"], row["theirs"]["losses"], strict=True))[:compared]:
        if abs(mine - expected) > SAME * max(abs(expected), 1e-3):
            raise RuntimeError(f"expected losses {row['theirs']['losses']}, found {row['ours']['losses']}")
    return {"name": name, "optimizer": optimizer, **row}


def ratio(row):
    return row["ours"]["items_per_second"] / row["theirs"]["items_per_second"]


def memory_ratio(row):
    return row["ours"]["peak_rss_bytes"] / row["theirs"]["peak_rss_bytes"]


def print_row(row):
    ours, theirs = row["ours"], row["theirs"]
    mb = [side["peak_rss_bytes"] / 1e6 for side in (ours, theirs)]
    print(f"| {row['name']} | {CASES[row['name']].batch} | {row['optimizer']} | {ours['items_per_second']:,.0f}"
          f" | {theirs['items_per_second']:,.0f} | {ratio(row):.2f} | {mb[0]:.0f} | {mb[1]:.0f}"
          f" | {memory_ratio(row):.2f} |", flush=True)  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", type=pathlib.Path, default=HERE.parents[1] / "build" / "bench" / "bench_train")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--optimizers", nargs="+", choices=RATES, default=list(RATES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of one side in one round; at least three steps")
    parser.add_argument("--json", type=pathlib.Path, help="also write all figures here")
    arguments = parser.parse_args()
    if arguments.threads > len(os.sched_getaffinity(0)):
        parser.error(f"{arguments.threads} threads need as many CPUs; there are {len(os.sched_getaffinity(0))}")

    rows, failed = [], False
    print("| network | batch | optimizer | samples/s | PyTorch | ratio | peak RSS, MB | PyTorch | ratio |")
    print("|---|---:|---|---:|---:|---:|---:|---:|---:|", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        for name in arguments.only:
            subprocess.run([sys.executable, "-W", "ignore", HERE / "peer.py", name, "--write", folder], check=True,
                           stdout=subprocess.DEVNULL)  # fmt: skip
            for optimizer in arguments.optimizers:
                try:
                    rows.append(measure(arguments, folder, name, optimizer))
                except RuntimeError as error:
                    print(f"| {name} | | {optimizer} | failed: {error} |" + " |" * 5, flush=True)
                    failed = True
                    continue
                print_row(rows[-1])
    if rows:
        before = statistics.median(row["theirs"]["rss_before_bytes"] for row in rows)
        ratios = [ratio(row) for row in rows]
        print(f"\nsamples/s over PyTorch {rows[0]['theirs']['version']}: geometric mean {geometric_mean(ratios):.2f},"
              f" least {min(ratios):.2f}; peak memory: largest ratio {max(map(memory_ratio, rows)):.2f}."
              f" PyTorch's process has {before / 1e6:.0f} MB before it makes a network.")  # fmt: skip
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
