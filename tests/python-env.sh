#!/usr/bin/env bash
# Makes the Python environment of the interoperability tests, or brings it up to date.
#
# Usage: python-env.sh DIR
#
# DIR becomes a virtual environment with what requirements.txt (beside this script) pins. Nothing is done
# if DIR already holds exactly that. The interpreter is python3, or what PYTHON names.
set -euo pipefail

fail() {
    echo "python-env.sh: $*" >&2
    exit 1
}

[ $# -eq 1 ] || { echo "usage: python-env.sh DIR" >&2; exit 2; }

dir=$1
python=${PYTHON:-python3}
requirements=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/requirements.txt
record=$dir/requirements.sha256

wanted=$(sha256sum <"$requirements") || fail "cannot read $requirements"
if [ -x "$dir/bin/python" ] && [ -f "$record" ] && [ "$(cat "$record")" = "$wanted" ]; then
    exit 0
fi

command -v "$python" >/dev/null || fail "no $python on the PATH"
if [ -f "$record" ]; then
    rm -rf "$dir"
elif [ -e "$dir" ] && [ -n "$(ls -A "$dir")" ]; then
    fail "$dir exists and was not made by this script"
fi
mkdir -p "$dir" || fail "cannot make $dir"
echo incomplete >"$record" || fail "cannot write to $dir"
"$python" -m venv "$dir" || fail "cannot make a virtual environment in $dir (Debian: apt-get install python3-venv)"
"$dir/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
    --requirement "$requirements" >&2 || fail "cannot install $requirements into $dir"
"$dir/bin/python" -m pip check --disable-pip-version-check >&2 || fail "$requirements does not pin every dependency"
echo "$wanted" >"$record"
