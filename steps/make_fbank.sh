#!/usr/bin/env bash
# Computes the features of data directories: cuts -> filter banks -> feats.scp, utt2num_frames.
# Usage: steps/make_fbank.sh [options] <data-dir> [<data-dir>...]
#  e.g.: steps/make_fbank.sh --nj 4 egs/mini/data/mini_test
set -euo pipefail

# Begin configuration section.
cmd=utils/run.py  # how jobs are run
nj=2              # number of parallel jobs, and of archives of a set that has none yet
config=           # features config (the recipe's conf/features.toml)
# End configuration section.
. "$(dirname "$0")/../utils/parse_options.sh"
. "$(dirname "$0")/../path.sh"
[ $# -ge 1 ] || usage
config=${config:-$(find_config features.toml "$1")}
need "$config" "give --config egs/<recipe>/conf/features.toml"
for data_dir in "$@"; do
  for f in "$data_dir/cuts.jsonl.gz" "$data_dir/utt2spk"; do
    need "$f" "run stages 1 and 2 first"
  done
done

read -ra cmd <<<"$cmd"
keep=true  # the number of archives: another machine's cores make no finished one again
room=()
if [[ " ${cmd[*]} " == *" --resume false "* ]]; then
  keep=false
  room=(--nj "$nj")
fi
python3 -m sv.bin.recipe space --config "$config" "${room[@]}" "$@"
. steps/compute_environment.sh 1
python3 -m sv.bin.recipe inputs --nj "$nj" --keep "$keep" "$@"
for data_dir in "$@"; do
  out=$data_dir/fbank
  total=$(wc -l <"$data_dir/utt2spk")
  jobs=$(cat "$out/num_jobs")
  printf '%s: %s: %d utterances, %d jobs\n' "$0" "$data_dir" "$total" "$jobs" >&2
  "${cmd[@]}" JOB=1:"$jobs" "$data_dir/log/fbank.JOB.log" \
    python3 -m sv.bin.make_fbank --config "$config" --job JOB --nj "$jobs" \
    --inputs "$out/inputs.JOB" "$data_dir" \
    "$out/fbank.JOB.ark" "$out/fbank.JOB.scp" "$out/utt2num_frames.JOB"

  parts=()
  frames=()
  logs=()
  for ((job = 1; job <= jobs; job++)); do
    parts+=("$out/fbank.$job.scp")
    frames+=("$out/utt2num_frames.$job")
    logs+=("$data_dir/log/fbank.$job.log")
  done
  utils/merge_tables.sh "$data_dir/feats.scp" "${parts[@]}"
  utils/merge_tables.sh "$data_dir/utt2num_frames" "${frames[@]}"
  made=$(wc -l <"$data_dir/feats.scp")
  [ "$made" -le "$total" ] || die "$data_dir: features of $((made - total)) utterances more than utt2spk has (audio repaired since?); run again from stage 1"
  if [ "$made" -lt "$total" ]; then
    first=$(awk 'sub(/.* no features for /, "") { print; exit }' "${logs[@]}")
    printf '%s: %s: no features for %d of %d utterances, logs are %s/log/fbank.*.log; first: %s\n' \
      "$0" "$data_dir" $((total - made)) "$total" "$data_dir" "$first" >&2
    # 99.9 %, in whole numbers.
    [ $((made * 1000)) -ge $((total * 999)) ] || die "$data_dir: too many to go on without them"
    utils/fix_data_dir.sh "$data_dir"
  fi
  # A silent file has an embedding as any other has, and its scores say nothing of a speaker.
  awk -v total="$total" -v name="$0: $data_dir" '
    / [0-9]+ silent$/ { count += $(NF - 1) }
    sub(/.* silent: /, "") && shown++ < 10 { list = list "\n  " $0 }
    END { if (count) printf "%s: %d of %d utterances are silent:%s\n", name, count, total, list }
  ' "${logs[@]}" >&2
  utils/validate_data_dir.sh --require feats.scp --no-spk-sort "$data_dir"
  # Of an earlier run with more jobs.
  for path in "$out"/{fbank,inputs,utt2num_frames}.*; do
    number=${path#"$out"/*.}
    [ "${number%%.*}" -le "$jobs" ] || rm "$path"
  done
done
