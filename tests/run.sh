#!/usr/bin/env bash
# Runs all tests, lint included, in the recipe's environment (made on first use).
# Usage: tests/run.sh [<pytest argument>...]
#  e.g.: tests/run.sh -k training
set -euo pipefail

cd "$(dirname "$(readlink -f "$0")")/.."
. ./path.sh
# pytest, the linters and what optional features need, where they are not installed yet.
extras=(tests onnx tensorboard)
if ! python3 utils/check_environment.py "${extras[@]}"; then
  if [ "$(command -v python3)" = "$PWD/.venv/bin/python3" ]; then
    utils/install.sh --extras "${extras[*]}"
  else
    printf '%s: python3 utils/check_environment.py --list %s | python3 -m pip install -r /dev/stdin\n' \
      "$0" "${extras[*]}" >&2
    exit 1
  fi
fi
# All tests, unless the arguments name some.
paths=(tests)
for word in "$@"; do
  if [ -e "${word%%::*}" ]; then paths=(); fi
done
# A process a core and one more, as some tests wait (for Slurm, for a sample), up to four. A file's
# tests stay together, as they share what is slow to make; conftest.py says which files come first.
cores=$(env -u OMP_NUM_THREADS nproc)
exec python3 -m pytest -n $((cores < 4 ? cores + 1 : 4)) --dist loadfile \
  --no-loadscope-reorder "$@" "${paths[@]}"
