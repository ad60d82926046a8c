#!/usr/bin/env bash
# Functions that run one stage of run.sh, to be sourced by it: its variables are theirs.
# Usage: . utils/stages.sh
#  e.g.: meter 3 fbank data/energy -- steps/make_fbank.sh data/mini_test
# shellcheck disable=SC2154  # conf, country, model, dir and skip_finished are run.sh's
set -euo pipefail

# Run a stage's command under its meter: meter <stage> <name> <folder> [--model M] -- <command>...
meter() {
  _announce "$1" "$2"
  utils/meter.sh --stage "$1" --name "$2" --dir "$3" --config "$conf/energy.toml" \
    --country "$country" --end-with-parent true "${@:4}"
}

# The same for a stage of one model: model_stage <stage> <name> -- <command>...
# With --skip-finished, not if it is finished; sv/study/completion.py says what that is.
model_stage() {
  local state same=("$1" "$2" "$dir/energy" "${@:3}")
  state=$(python3 -m sv.bin.completion --begin --skip "$skip_finished" "${same[@]}")
  if [ "$state" = finished ]; then
    _announce "$1" "$2: finished before"
    return
  fi
  meter "$1" "$2" "$dir/energy" --model "$model" "${@:3}"
  python3 -m sv.bin.completion --end "${same[@]}"
}

_announce() {
  printf 'run.sh: %s stage %s: %s\n' "$(date '+%F %T')" "$1" "$2" >&2
}
