#!/usr/bin/env bash
# Installs what onnxpress is built with: Debian 12 (bookworm) or 13 (trixie) packages.
# Does nothing when all are there. Needs root, or sudo.
#   tools/install-dependencies.sh [--tests]     --tests: also what only the tests need
set -euo pipefail

packages=(g++ cmake ninja-build ccache libonnx-dev libprotobuf-dev protobuf-compiler libeigen3-dev libcli11-dev
  libfmt-dev libdnnl-dev libhwy-dev nlohmann-json3-dev libyaml-cpp-dev libzip-dev zlib1g-dev libpng-dev
  libjpeg-dev libxxhash-dev libssl-dev doctest-dev)
tests=(libonnx-testdata python3 python3-venv qemu-user)
case "${1:-}" in
  --tests) packages+=("${tests[@]}") ;;
  "") ;;
  *) echo "usage: $0 [--tests]" >&2; exit 2 ;;
esac

missing=()
for package in "${packages[@]}"; do
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

run=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || { echo "$0: needs root or sudo to install: ${missing[*]}" >&2; exit 1; }
  run=(sudo)
fi
echo "installing: ${missing[*]}" >&2
"${run[@]}" apt-get update -qq
"${run[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
