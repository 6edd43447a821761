#!/usr/bin/env bash
# From a bare machine to a compressed model: installs dependencies, builds, compresses
# testdata/digits_cnn.onnx and prints the report. Files go to build/demo.
set -euo pipefail
cd "$(dirname "$0")/.."
tools/install-dependencies.sh
cmake --preset release -DONNXPRESS_TESTS=OFF >build-demo.log 2>&1 ||
  { cat build-demo.log >&2; exit 1; }
cmake --build --preset release --target onnxpress >>build-demo.log 2>&1 ||
  { tail -n 40 build-demo.log >&2; exit 1; }
rm -f build-demo.log
mkdir -p build/demo
build/onnxpress compress testdata/digits_cnn.onnx -o build/demo/digits_cnn.onnx \
  --passes 'simplify,fuse,prune_magnitude{sparsity=0.5},quantize_weights{bits=8}' \
  --eval testdata/digits_test.npz --max-drop 1% --min-ratio 3 \
  --report build/demo/report.json --report build/demo/report.md
