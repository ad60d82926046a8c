#!/usr/bin/env bash
# Forecasts the kWh, CO2 and hours of a whole training from a short metered segment of it.
# The segment's weights are thrown away; its energy is kept in <exp-dir>/energy/05_forecast.json.
# Usage: steps/forecast.sh [options] <egs-dir> <exp-dir>
#  e.g.: steps/forecast.sh --model resnet50_d_2882 --config egs/mini/conf/train.toml data/egs exp/M
set -euo pipefail

# Begin configuration section.
cmd=utils/run.py  # how the job is run
model=            # model name, required
config=           # training config (the recipe's conf/train.toml)
energy_config=    # settings of the meter (conf/energy.toml)
country=          # ISO3 code of the grid, instead of the config's
ngpu=0            # GPUs of the node, a process each; 0: CPU
nnodes=1          # only 1: the segment is metered on this node
nproc=            # processes, for several without GPUs (a process a GPU, or one)
num_threads=2     # CPU threads, shared by the processes
features_root=    # disk of the node for copies of the features (none)
num_steps=60      # steps of the segment
# End configuration section.
. "$(dirname "$0")/../utils/parse_options.sh"
. "$(dirname "$0")/../path.sh"
[ $# -eq 2 ] || usage
[ -n "$model" ] || die "give --model"
config=${config:-$(find_config train.toml "$1")}
need "$config" "give --config egs/<recipe>/conf/train.toml"
[ "$nnodes" -eq 1 ] || bad_option "--nnodes $nnodes: a forecast is made on one node; \
give --nnodes 1, and take the hours of $nnodes nodes for 1/$nnodes of it at best"

egs_dir=$1
exp_dir=$2
segment=$exp_dir/forecast
need "$egs_dir/train.npz" "run stage 4 first"
printf '%s: %s steps of %s, log is %s\n' "$0" "$num_steps" "$model" "$segment/log/train.log" >&2
rm -rf "$segment"  # an earlier segment must not be resumed
case "${cmd%% *}" in  # as in run.sh
  *utils/run.py) gpus=$ngpu ;;
  *utils/slurm.py) gpus=0 ;;
  *) gpus= ;;
esac
utils/meter.sh --stage 5 --name forecast --dir "$exp_dir/energy" --model "$model" \
  --config "$energy_config" --country "$country" --end-with-parent true --ngpu "$gpus" -- \
  steps/train_xvector.sh --cmd "$cmd" --model "$model" --config "$config" --ngpu "$ngpu" \
  --nproc "$nproc" --num-threads "$num_threads" --features-root "$features_root" \
  --max-steps "$num_steps" "$egs_dir" "$segment"
rm -rf "$segment/checkpoints"
python3 -m sv.bin.forecast "$exp_dir/energy/05_forecast.json" "$exp_dir/forecast.json"
