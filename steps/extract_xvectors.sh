#!/usr/bin/env bash
# Extracts an embedding of every utterance of a data directory: <xvector-dir>/xvector.scp.
# Usage: steps/extract_xvectors.sh [options] <exp-dir> <data-dir> <xvector-dir>
#  e.g.: steps/extract_xvectors.sh --nj 2 exp/M data/mini_test exp/M/xvectors_mini_test
# Reads: <exp-dir>/final.pt <data-dir>/feats.scp <data-dir>/utt2num_frames
# Writes: <xvector-dir>/xvector.scp <xvector-dir>/info.json
set -euo pipefail

# Begin configuration section.
cmd=utils/run.py  # how jobs are run
nj=1              # number of parallel jobs
num_threads=      # CPU threads of a job (1; of one with a GPU nj / ngpu, which read its batches)
ngpu=0            # 0: CPU, N: N jobs with a GPU each, whatever nj
precision=fp32    # fp32|fp16|bf16: number format of the arithmetic
untrained=false   # true|false: extract with the weights before training, for comparison
# End configuration section.
. "$(dirname "$0")/../utils/parse_options.sh"
. "$(dirname "$0")/../path.sh"
[ $# -eq 3 ] || usage

exp_dir=$1
data_dir=$2
out=$3
need "$exp_dir/final.pt" "run stage 5 first"
for f in "$data_dir/feats.scp" "$data_dir/utt2num_frames" "$data_dir/utt2dur"; do
  need "$f" "run stage 3 first"
done
python3 -m sv.bin.recipe front-end "$exp_dir" "$data_dir"

read -ra cmd <<<"$cmd"
gpu=0  # GPUs of a job
if [ "$ngpu" -gt 0 ]; then
  # Jobs that share a card only wait for each other, each with its own copy of the network.
  gpu=1
  num_threads=${num_threads:-$((nj > ngpu ? nj / ngpu : 1))}
  nj=$ngpu
fi
num_threads=${num_threads:-1}
. steps/compute_environment.sh "$num_threads"
total=$(wc -l <"$data_dir/feats.scp")
jobs=$((nj < total ? nj : total))  # no more jobs than utterances
printf '%s: %s: %d utterances, %s, %d jobs, log is %s\n' \
  "$0" "$data_dir" "$total" "$precision" "$jobs" "$out/log/extract.*.log" >&2
"${cmd[@]}" --num-threads "$num_threads" --gpu "$gpu" JOB=1:$jobs "$out/log/extract.JOB.log" \
  python3 -m sv.bin.extract --precision "$precision" --untrained "$untrained" --ngpu "$gpu" \
  --num-threads "$num_threads" --job JOB --nj "$jobs" "$exp_dir/final.pt" \
  "$data_dir/feats.scp" "$data_dir/utt2num_frames" \
  "$out/xvector.JOB.ark" "$out/xvector.JOB.scp" "$out/info.JOB.json"

parts=()
infos=()
for ((job = 1; job <= jobs; job++)); do
  parts+=("$out/xvector.$job.scp")
  infos+=("$out/info.$job.json")
done
utils/merge_tables.sh "$out/xvector.scp" "${parts[@]}"
made=$(wc -l <"$out/xvector.scp")
[ "$made" -eq "$total" ] || die "$out: $made embeddings of $total utterances, see $out/log"
python3 -m sv.bin.recipe merge-infos "$data_dir" "$out/info.json" "${infos[@]}"
