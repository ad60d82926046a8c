#!/usr/bin/env bash
# Makes .venv in the repository and installs the packages of pyproject.toml into it, as pinned.
# Nothing else is touched.
# Usage: utils/install.sh [options]
#  e.g.: utils/install.sh --extras "tests onnx tensorboard"
set -euo pipefail

# Begin configuration section.
python=python3  # the Python (3.11 or later) that .venv is made with
extras=         # extras of pyproject.toml too, in quotes: tests onnx tensorboard
# End configuration section.
. utils/parse_options.sh
[ $# -eq 0 ] || usage

command -v "$python" >/dev/null ||
  bad_option "no program $python: name a Python of 3.11 or later by utils/install.sh --python"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  die "$python is older than 3.11; name another one: utils/install.sh --python python3.12"

read -ra extras <<<"$extras"
listed=$("$python" utils/check_environment.py --list "${extras[@]}")
mapfile -t requirements <<<"$listed"

log=.venv/install.log
if [ ! -x .venv/bin/pip ]; then "$python" -m venv .venv; fi
printf '%s: installing into .venv (a few minutes the first time), log is %s\n' "$0" "$log" >&2
# No cache: nothing is written outside .venv, and home folders of clusters are small.
.venv/bin/python -m pip install --no-cache-dir "${requirements[@]}" >"$log" 2>&1 ||
  die "pip failed, log is $log: $(grep -m 1 '^ERROR' "$log")"

# torchaudio's wheel is built against CUDA. On a CPU-only torch its compiled extension cannot be
# loaded and `import torchaudio` dies with it, though the parts used here are pure Python.
# So set the extension aside, there only: where the import works nothing is changed.
.venv/bin/python utils/mend_torchaudio.py >>"$log" 2>&1 ||
  die "torchaudio cannot be imported, log is $log"
.venv/bin/python utils/check_environment.py "${extras[@]}"
