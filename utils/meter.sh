#!/usr/bin/env bash
# Runs one command and writes what it used (energy, carbon, time) to <dir>/<NN>_<name>.json.
# The command's input, output and exit status are its own; docs/energy.md says what is counted.
# Usage: utils/meter.sh [options] -- <command> [<argument> ...]
#  e.g.: utils/meter.sh --stage 5 --name train --dir exp/M/energy --model M -- steps/train_xvector.sh ...
set -euo pipefail

# Begin configuration section.
stage=  # number of the stage, 0 to 99
name=  # name of the stage: train, extract_voxceleb1
dir=  # folder of the sidecar: exp/<model>/energy or data/energy
model=  # name of the model; empty for a stage that all models share
config=  # egs/<x>/conf/energy.toml; empty for the built-in values
country=  # ISO3 code of the grid, instead of the config's
ngpu=  # GPUs to lock for the command and count; 0: it sees none; empty: all that it sees count
end_with_parent=false  # true|false: end the command when the script that called this has gone
skip_finished=  # true|false: record the step's files; true: skip it while these are unchanged
sysfs=/sys  # root of sysfs; another one where a container mounts it elsewhere
# End configuration section.
. utils/parse_options.sh
. ./path.sh
[ $# -ge 1 ] || usage

printf '%s: %(%F %T)T stage %s %s\n' "$0" -1 "$stage" "$name" >&2
exec python3 -m sv.bin.meter --stage "$stage" --name "$name" --dir "$dir" --model "$model" \
  --config "$config" --country "$country" --ngpu "$ngpu" --end-with-parent "$end_with_parent" \
  --skip-finished "$skip_finished" --sysfs "$sysfs" -- "$@"
