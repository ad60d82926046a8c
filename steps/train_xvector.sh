#!/usr/bin/env bash
# Trains an embedding network; run again, it goes on from the last checkpoint.
# Usage: steps/train_xvector.sh [options] <egs-dir> <exp-dir>
#  e.g.: steps/train_xvector.sh --model resnet50_d_2882 --config egs/mini/conf/train.toml data/egs exp/M
set -euo pipefail

# Begin configuration section.
cmd=utils/run.py  # how the job is run
model=            # model name, required
config=           # training config, required (conf/train.toml)
ngpu=0            # 0: CPU, 1: the first visible GPU
num_threads=2     # CPU threads
max_kwh=          # energy of this attempt at which to save a checkpoint and end (no limit)
max_steps=        # end after so many steps, without a final model: to see what they cost (no limit)
resume=true       # true|false: false moves an earlier run to <exp-dir>/.backup and begins again
# End configuration section.
. utils/parse_options.sh
. ./path.sh
[ $# -eq 2 ] || usage
[ -n "$model" ] || die "give --model"
[ -s "$config" ] || die "no such file '$config'; give --config conf/train.toml"

egs_dir=$1 exp_dir=$2
for f in "$egs_dir/train.npz" "$egs_dir/spk2int" "$egs_dir/valid/trials"; do
  [ -s "$f" ] || die "no such file $f; run stage 4 first"
done
if [ "$resume" = false ]; then
  # The energy folder stays: what was tried before has cost energy too.
  backup=$exp_dir/.backup/$(date -u +%Y%m%dT%H%M%SZ)
  for old in "$exp_dir"/{checkpoints,final.pt,model.json,config.toml,results.json,scores,log} \
    "$exp_dir"/xvectors_*; do
    if [ -e "$old" ]; then
      mkdir -p "$backup"
      mv "$old" "$backup/"
    fi
  done
  if [ -d "$backup" ]; then printf '%s: moved the earlier run to %s\n' "$0" "$backup" >&2; fi
fi

limits=()
if [ -n "$max_kwh" ]; then limits+=(--max-kwh "$max_kwh"); fi
if [ -n "$max_steps" ]; then limits+=(--max-steps "$max_steps"); fi

. steps/compute_environment.sh "$num_threads"
read -ra cmd <<<"$cmd"
printf '%s: training %s, log is %s\n' "$0" "$model" "$exp_dir/log/train.log" >&2
"${cmd[@]}" --num-threads "$num_threads" --gpu "$ngpu" "$exp_dir/log/train.log" \
  python3 -m sv.bin.train --model "$model" --config "$config" --ngpu "$ngpu" \
  --num-threads "$num_threads" "${limits[@]}" "$egs_dir" "$exp_dir"
