#!/usr/bin/env bash
# Runs one command, and prints the kWh, gCO2 and watts that it used; with --dir they are kept, in
# <dir>/<NN>_<name>.json. The command's input, output, exit status, folder and environment are its
# own; docs/energy.md says what is counted.
# Usage: utils/meter.sh [options] [--] <command> [<argument> ...]
#  e.g.: utils/meter.sh --country FRA python3 my_training.py --lr 0.1
#        utils/meter.sh --stage 5 --name train --dir exp/M/energy --model M -- steps/train_xvector.sh ...
set -euo pipefail

# Begin configuration section.
stage=  # number of a recipe's stage, 0 to 99; empty: the command is none
name=  # name of the stage: train, extract_voxceleb1 (the program's)
dir=  # folder of the sidecar: exp/<model>/energy or data/energy; empty: none is kept
model=  # name of the model; empty for a stage that all models share
config=  # egs/<x>/conf/energy.toml; empty for the built-in values
country=  # ISO3 code of the grid (the config's, else the world's mean)
ngpu=  # GPUs to lock for the command and count; 0: it sees none; empty: all that it sees count
end_with_parent=false  # true|false: end the command when the script that called this has gone
skip_finished=  # true|false: record the step's files; true: skip it while these are unchanged
sysfs=/sys  # root of sysfs; another one where a container mounts it elsewhere
# End configuration section.
root=$(dirname "$(dirname "$(readlink -f "$0")")")
options_follow=true  # those of the command
. "$root/utils/parse_options.sh"
[ $# -ge 1 ] || usage

meter=(python3 -m sv.bin.meter)
if [ -n "$stage" ]; then
  . "$root/path.sh"
  printf '%s: %(%F %T)T stage %s %s\n' "$0" -1 "$stage" "$name" >&2
else
  # Not the recipe's: path.sh's Python runs the meter, none of its variables reaches the command.
  python=$(cd "$root" && . ./path.sh >&2 && printf '%s' "$SV_ENVIRONMENT")
  meter=("$python" -P -c 'import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); \
runpy.run_module("sv.bin.meter", run_name="__main__")' "$root")
fi
exec "${meter[@]}" --stage "$stage" --name "$name" --dir "$dir" --model "$model" \
  --config "$config" --country "$country" --ngpu "$ngpu" --end-with-parent "$end_with_parent" \
  --skip-finished "$skip_finished" --sysfs "$sysfs" -- "$@"
