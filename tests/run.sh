#!/usr/bin/env bash
# Runs all tests, lint included, in the recipe's environment (made on first use).
# Usage: tests/run.sh [<pytest argument>...]
#  e.g.: tests/run.sh -k training
set -euo pipefail

cd "$(dirname "$(readlink -f "$0")")/.."
. ./path.sh
# pytest and the linters beside the recipe's packages, where they are not there yet.
if ! python3 utils/check_environment.py tests/requirements.txt; then
  if [ "$(command -v python3)" = "$PWD/.venv/bin/python3" ]; then
    utils/install.sh --dev true
  else
    printf '%s: python3 -m pip install -r tests/requirements.txt puts them there\n' "$0" >&2
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
exec python3 -m pytest -c tests/pytest.ini -n $((cores < 4 ? cores + 1 : 4)) --dist loadfile \
  --no-loadscope-reorder "$@" "${paths[@]}"
