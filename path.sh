#!/usr/bin/env bash
# Sets up the environment of every script; source it: . ./path.sh
# An active environment that has the packages is used as it is; else .venv, made on first use.

# Scripts name each other from the folder that they are called in, the repository or a recipe with
# links to it: what another folder has under these names is never run.
_root=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
if [ ! "$_root/utils" -ef utils ] || [ ! "$_root/steps" -ef steps ]; then
  printf '%s: call it from %s\n' "$0" "$_root" >&2
  exit 1
fi

# C order is the order of every table on disk, in sort as in Python.
export LC_ALL=C
# One thread a process: parallel jobs with threads of their own fight for the cores.
# Training and extraction, which want the cores for themselves, set their own number.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

# The outermost script looks for the environment, its children inherit what it found.
if [ -z "${SV_ENVIRONMENT:-}" ] || [ "${SV_ROOT:-}" != "$_root" ]; then
  export SV_ROOT=$_root
  export PYTHONPATH="$_root${PYTHONPATH:+:$PYTHONPATH}"
  _check=$_root/utils/check_environment.py
  if ! lacks=$(python3 "$_check" 2>&1); then # not a failure: .venv is next
    if [ ! -x "$_root/.venv/bin/python" ] || ! lacks=$("$_root/.venv/bin/python" "$_check" 2>&1); then
      printf '%s\n' "$lacks" >&2
      (cd "$_root" && utils/install.sh)
    fi
    export PATH="$_root/.venv/bin:$PATH"
  fi
  SV_ENVIRONMENT=$(command -v python3)
  export SV_ENVIRONMENT
fi
