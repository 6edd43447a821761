"""The node cases of the pinned onnx package, as its own loader finds them, on our engine.

All run in one process of onnxpress_backend_cases (ONNXPRESS_BACKEND_CASES names it). Those that do not pass are listed in
newest_known_failures.txt. Run as a program with --update, this file rewrites that list:

    ONNXPRESS_BACKEND_CASES=build/tests/onnxpress_backend_cases build/python-env/bin/python tests/python/test_newest_cases.py --update
"""

import os
import pathlib
import subprocess
import sys

from onnx.backend.test.loader import load_model_tests

MANIFEST = pathlib.Path(__file__).with_name("newest_known_failures.txt")
TOLERANCES = (1e-3, 1e-7)
"""What the program compares with."""


def run(*options):
    cases = load_model_tests(kind="node")
    assert {(case.rtol, case.atol) for case in cases} == {TOLERANCES}
    result = subprocess.run([os.environ["ONNXPRESS_BACKEND_CASES"], "--manifest", MANIFEST, *options, *sorted(case.model_dir for case in cases)],
                            capture_output=True, text=True, check=False)  # fmt: skip
    return cases, result


def test_newest_cases():
    cases, result = run()
    lines = result.stdout.splitlines()
    deviations = [line for line in lines if line.startswith("DEVIATES ")]
    assert result.returncode == 0, "\n".join([*deviations, result.stderr])
    passed = [line for line in lines if line.endswith(": pass")]
    assert len(lines) == len(cases) + 1
    assert len(passed) > len(cases) // 2


if __name__ == "__main__":
    if sys.argv[1:] != ["--update"]:
        sys.exit(__doc__)
    _, outcome = run("--update")
    print(outcome.stdout.splitlines()[-1] if outcome.stdout else outcome.stderr)
    sys.exit(outcome.returncode)
