#!/usr/bin/env bash
# Makes .venv in the repository and installs the packages of pyproject.toml into it, as locked in
# requirements.lock: with all that they need, at these versions, and files of these hashes alone.
# torch and torchaudio come after them, by version: they are a build for each kind of machine, with
# libraries of its own. Nothing else is touched.
# Usage: utils/install.sh [options]
#  e.g.: utils/install.sh --extras "tests onnx tensorboard"
#        utils/install.sh --cuda cu126   (on a login node, for nodes with V100 boards)
set -euo pipefail

# Begin configuration section.
python=python3  # the Python (3.11 to 3.13) that .venv is made with
extras=         # extras of pyproject.toml too, in quotes: tests onnx tensorboard
cuda=auto       # auto|cu126|cu130|cpu: build of torch; auto: for the GPUs and the driver of this machine
index=https://download.pytorch.org/whl  # where torch's builds are (<index>/cu126), or a mirror
# End configuration section.
. "$(dirname "$0")/../utils/parse_options.sh"
[ $# -eq 0 ] || usage
[ "$0" -ef utils/install.sh ] || die "call it from the folder of the repository"

command -v "$python" >/dev/null ||
  bad_option "no program $python: name a Python of 3.11 to 3.13 by utils/install.sh --python"
"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' ||
  die "$python is not 3.11 to 3.13; name another one: utils/install.sh --python python3.12"

[[ "$cuda" =~ ^(auto|cu126|cu130|cpu)$ ]] || bad_option "--cuda is auto, cu126, cu130 or cpu"
build=$cuda
if [ "$cuda" = auto ]; then build=$("$python" utils/check_environment.py --cuda); fi

read -ra extras <<<"$extras"
listed=$("$python" utils/check_environment.py --list "${extras[@]}")
locked=$("$python" utils/check_environment.py --lock "${extras[@]}")
mapfile -t builds < <(grep -E '^torch(audio)?==' <<<"$listed")

log=.venv/install.log
if [ ! -x .venv/bin/pip ]; then "$python" -m venv .venv; fi
: >"$log"
printf '%s: installing into .venv (a few minutes the first time), log is %s\n' "$0" "$log" >&2
if [ "$build" = pypi ] && .venv/bin/python -m pip freeze | grep '^torch==.*+' >>"$log"; then
  .venv/bin/python -m pip uninstall --yes torch >>"$log" 2>&1  # pip would take it for PyPI's
elif [[ "$build" = c* ]]; then
  # This package alone, and from nowhere else: what it needs is on PyPI.
  torch="$(grep '^torch==' <<<"$listed")+$build"
  .venv/bin/python -m pip install --no-cache-dir --no-deps --retries 1 --index-url "$index/$build" \
    "$torch" >>"$log" 2>&1 ||
    die "no $torch from $index/$build, log is $log; run this where the network reaches it, or name \
a mirror: --index URL"
fi
# No cache: nothing is written outside .venv, and home folders of clusters are small.
pip=(.venv/bin/python -m pip install --no-cache-dir --retries 1)
printf '%s\n' "$locked" >.venv/requirements.txt
failed() {
  if grep -qE 'NewConnectionError|Name(Resolution)?Error|ConnectTimeout' "$log"; then
    die "pip reaches no package index, log is $log: run this where there is network (a login node), \
or give pip a mirror: export PIP_INDEX_URL=URL"
  fi
  die "pip failed, log is $log: $(grep -m 1 '^ERROR' "$log")"
}
"${pip[@]}" --no-deps --require-hashes -r .venv/requirements.txt >>"$log" 2>&1 || failed
"${pip[@]}" "${builds[@]}" >>"$log" 2>&1 || failed

# torchaudio's compiled extension is built against CUDA 13. With another build of torch it cannot be
# loaded and `import torchaudio` dies with it, though the parts used here are pure Python.
# So set the extension aside, there only: where the import works nothing is changed.
.venv/bin/python utils/mend_torchaudio.py >>"$log" 2>&1 ||
  die "torchaudio cannot be imported, log is $log"
.venv/bin/python utils/check_environment.py "${extras[@]}"
