#!/usr/bin/env bash
# Sets up the environment of every script; source it from the repository root: . ./path.sh
# An active environment that has the packages is used as it is; else .venv, made on first use.

# C order is the order of every table on disk, in sort as in Python.
export LC_ALL=C
# One thread a process: parallel jobs with threads of their own fight for the cores.
# Training and extraction, which want the cores for themselves, set their own number.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

# The outermost script looks for the environment, its children inherit what it found.
if [ -z "${SV_ENVIRONMENT:-}" ]; then
  export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
  if ! lacks=$(python3 utils/check_environment.py 2>&1); then # not a failure: .venv is next
    if [ ! -x .venv/bin/python ] || ! lacks=$(.venv/bin/python utils/check_environment.py 2>&1); then
      printf '%s\n' "$lacks" >&2
      utils/install.sh
    fi
    export PATH="$PWD/.venv/bin:$PATH"
  fi
  SV_ENVIRONMENT=$(command -v python3)
  export SV_ENVIRONMENT
fi
