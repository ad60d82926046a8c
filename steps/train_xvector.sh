#!/usr/bin/env bash
# Trains an embedding network; run again, it resumes from the last checkpoint. Several processes
# (--ngpu N, --nproc P, --nnodes M) have the batches and the learning curve of one.
# Usage: steps/train_xvector.sh [options] <egs-dir> <exp-dir>
#  e.g.: steps/train_xvector.sh --model resnet50_d_2882 --config egs/mini/conf/train.toml data/egs exp/M
# Reads: <config> <egs-dir>/train.npz <egs-dir>/spk2int <egs-dir>/egs.json <egs-dir>/valid/trials
# Writes: <exp-dir>/final.pt <exp-dir>/model.json
set -euo pipefail

# Begin configuration section.
cmd=utils/run.py  # how the job is run
model=            # model name, required
config=           # training config (the recipe's conf/train.toml)
ngpu=0            # GPUs of a node, a process each; 0: CPU
nnodes=1          # nodes; Slurm starts them all, without Slurm start this on each one
nproc=            # processes of a node, for several without GPUs (a process a GPU, or one)
rdzv=             # without Slurm: host:port of the first node, where all meet
node_rank=0       # without Slurm: number of this node, the first is 0
num_threads=2     # CPU threads of a node, shared by its processes
features_root=    # disk of each node for copies of the features, as '$SLURM_TMPDIR' (none)
max_kwh=          # energy of this attempt at which to save a checkpoint and end (no limit)
max_steps=        # end after so many steps, without a final model: to see what they cost (no limit)
resume=true       # true|false: false begins again, and moves an earlier run to <exp-dir>/.backup
# End configuration section.
. "$(dirname "$0")/../utils/parse_options.sh"
. "$(dirname "$0")/../path.sh"
[ $# -eq 2 ] || usage
[ -n "$model" ] || die "give --model"
config=${config:-$(find_config train.toml "$1")}
need "$config" "give --config egs/<recipe>/conf/train.toml"
nproc=${nproc:-$((ngpu > 1 ? ngpu : 1))}
[[ "$nproc" =~ ^[1-9][0-9]*$ ]] || bad_option "--nproc must be a whole number of at least 1"
[[ "$nnodes" -ge 1 ]] || bad_option "--nnodes must be at least 1"
[[ "$ngpu" -eq 0 || "$nproc" -eq "$ngpu" ]] ||
  bad_option "--ngpu $ngpu has $ngpu processes a node; --nproc is for CPUs"

egs_dir=$1
exp_dir=$2
for f in "$egs_dir/train.npz" "$egs_dir/spk2int" "$egs_dir/valid/trials"; do
  need "$f" "run stage 4 first"
done
limits=()
if [ -n "$max_kwh" ]; then limits+=(--max-kwh "$max_kwh"); fi
if [ -n "$max_steps" ]; then limits+=(--max-steps "$max_steps"); fi

threads=$((num_threads > nproc ? num_threads / nproc : 1))  # of a process
log=$exp_dir/log/train.log
if [ "$node_rank" -gt 0 ]; then log=$exp_dir/log/train.node$node_rank.log; fi
if [[ "$resume" = false && "$node_rank" -eq 0 ]] &&
  [[ -e "$exp_dir/checkpoints" || -e "$exp_dir/final.pt" ]]; then
  # The energy folder stays: earlier attempts have cost energy too.
  backup=$exp_dir/.backup/$(date -u +%Y%m%dT%H%M%SZ)
  limits+=(--backup "$backup")
  if [ -e "$log" ]; then cp -p --remove-destination "$log" "$log.1"; fi  # the job writes its own
  printf '%s: once all is checked, the earlier run goes to %s; this brings it back: ' \
    "$0" "$backup" >&2
  printf 'mv --backup=numbered -t %q %q/*\n' "$exp_dir" "$backup" >&2
fi
train=(python3 -m sv.bin.train --ngpu "$ngpu")
if [ $((nnodes * nproc)) -gt 1 ]; then
  train=(python3 -m sv.bin.launch --nnodes "$nnodes" --nproc "$nproc" --ngpu "$ngpu")
  if [ -n "$rdzv" ]; then train+=(--rdzv "$rdzv" --node-rank "$node_rank"); fi
  train+=(--)
fi
if [ -n "$features_root" ]; then
  train=(python3 -m sv.bin.stage_features "$features_root" "$egs_dir" -- "${train[@]}")
  limits+=(--features-root "$features_root")
fi

. steps/compute_environment.sh "$threads"
read -ra cmd <<<"$cmd"
# With --rdzv the user starts the nodes, else the job does.
if [ "$nnodes" -gt 1 ] && [ -z "$rdzv" ]; then cmd+=(--nodes "$nnodes"); fi
printf '%s: training %s, log is %s\n' "$0" "$model" "$log" >&2
"${cmd[@]}" --num-threads "$num_threads" --gpu "$ngpu" "$log" \
  "${train[@]}" --model "$model" --config "$config" \
  --num-threads "$threads" "${limits[@]}" "$egs_dir" "$exp_dir"
