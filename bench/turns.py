"""Programs measured side by side: processes that stay loaded and take turns."""

import json
import math
import os
import pathlib
import statistics
import subprocess


def peak_bytes():
    """VmHWM of this process; getrusage's figure begins with what the parent process had."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def cpu_list(threads):
    """The last `threads` CPUs that this process may use: interrupts go to the first more often."""
    return ",".join(map(str, sorted(os.sched_getaffinity(0))[-threads:]))


def geometric_mean(values):
    return math.exp(statistics.fmean(map(math.log, values))) if values else math.nan


class Program:
    """One side: a process that prints a line of JSON when it is ready, and one for every line that it reads."""

    def __init__(self, command, cpus):
        command = ["taskset", "-c", cpus, *map(str, command)]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("OMP_")}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        text=True, env=environment)  # fmt: skip
        self.rounds = []
        try:
            self.load = self.read()
        except RuntimeError:
            self.close()
            raise

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(self.process.stderr.read().strip().splitlines()[-1][:200])
        return json.loads(line)

    def measure(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.rounds.append(self.read())

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()

    def result(self):
        rates = [r["items_per_second"] for r in self.rounds]
        return {**self.load, "items_per_second": statistics.median(rates), "rates": rates,
                "median_ms": statistics.median(r["median_ms"] for r in self.rounds),
                "peak_rss_bytes": max(r["peak_rss_bytes"] for r in self.rounds)}  # fmt: skip


def take_turns(starts, rounds):
    """Starts the programs, measures each once a round, the order swapped every round; their results."""
    sides = []
    try:
        for start in starts:
            sides.append(start())
        for number in range(rounds):
            for side in sides if number % 2 == 0 else reversed(sides):
                side.measure()
        return [side.result() for side in sides]
    finally:
        for side in sides:
            side.close()
