#!/usr/bin/env bash
# From a bare machine to passed tests: installs dependencies, makes the Python environment for the
# tests against the real ONNX Runtime, builds, runs everything.
set -euo pipefail
cd "$(dirname "$0")/.."
tools/install-dependencies.sh --tests
tests/python-env.sh build/python-env
cmake --preset ci
cmake --build --preset ci
ctest --preset ci --no-tests=error
