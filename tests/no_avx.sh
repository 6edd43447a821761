#!/usr/bin/env bash
# The program runs on an emulated processor without AVX, and measures what it measures here.
#
# Usage: no_avx.sh ONNXPRESS QEMU TESTDATA     QEMU: qemu-x86_64 (Debian: qemu-user)
set -euo pipefail

fail() {
    echo "no_avx.sh: $*" >&2
    exit 1
}

[ $# -eq 3 ] || { echo "usage: no_avx.sh ONNXPRESS QEMU TESTDATA" >&2; exit 2; }

onnxpress=$1
emulate=("$2" -cpu Nehalem)
testdata=$3
[ -x "$2" ] || fail "no program $2 (Debian: apt-get install qemu-user)"

evaluate=(eval "$testdata/digits_cnn.onnx" --data "$testdata/digits_test.npz" --threads 2 --format json)
native=$("$onnxpress" "${evaluate[@]}") || fail "eval failed"
emulated=$("${emulate[@]}" "$onnxpress" "${evaluate[@]}") || fail "eval failed without AVX"

grep -q '"cpu": "sse' <<<"$emulated" || fail "the emulated processor is not one without AVX: $emulated"

# Shares of the samples, which rounding does not move; the loss is left out.
accuracy() {
    grep -A 1 -E '"(top1|top5|precision|recall|f1)": |"correct": ' <<<"$1"
}
expected=$(accuracy "$native") || fail "no accuracy in: $native"
found=$(accuracy "$emulated") || fail "no accuracy in: $emulated"
[ "$expected" = "$found" ] || fail "expected $expected, found $found"
