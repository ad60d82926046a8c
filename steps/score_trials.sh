#!/usr/bin/env bash
# Scores a trial list: <scores-dir>/<name>.txt, metrics as .json, DET curve as .det.json.
# Usage: steps/score_trials.sh [options] <xvector-dir> <trials> <scores-dir>
#  e.g.: steps/score_trials.sh exp/M/xvectors_mini_test data/trials/mini exp/M/scores
# Reads: <config> <xvector-dir>/xvector.scp <cohort>/xvector.scp <trials> <trials>.models <utt2spk>
# Writes: <scores-dir>/<name>.txt <scores-dir>/<name>.json <scores-dir>/<name>.boot.json
set -euo pipefail

# Begin configuration section.
cmd=utils/run.py  # how the job is run
backend=cosine    # cosine, cosine_mean or as_norm
cohort=           # embeddings of training speakers (steps/extract_cohort.sh), not for cosine
config=           # scoring config (conf/score.toml; its defaults)
name=             # name of the results (<trials>_<backend>)
num_threads=1     # CPU threads
utt2spk=          # speakers of the list: with them also intervals (.boot.json) and .hist.json
# End configuration section.
. utils/parse_options.sh
. ./path.sh
[ $# -eq 3 ] || usage

xvector_dir=$1 trials=$2 scores_dir=$3
[ -s "$xvector_dir/xvector.scp" ] || die "no such file $xvector_dir/xvector.scp; run stage 6 first"
[ -s "$trials" ] || die "no such file $trials; run stage 1 first"
options=(--backend "$backend" --num-threads "$num_threads")
if [ -n "$config" ]; then options+=(--config "$config"); fi
if [ "$backend" != cosine ]; then
  [ -s "$cohort/xvector.scp" ] || die "no such file '$cohort/xvector.scp'; run stage 6 first"
  options+=(--cohort "$cohort")
fi
name=${name:-$(basename "$trials")_$backend}
[ -z "$utt2spk" ] || [ -s "$utt2spk" ] || die "no such file $utt2spk; run stage 1 first"
read -ra cmd <<<"$cmd"
"${cmd[@]}" --num-threads "$num_threads" "$scores_dir/log/$name.log" \
  python3 -m sv.bin.score_trials "${options[@]}" "$xvector_dir" "$trials" "$scores_dir/$name"
printf '%s: %s\n' "$0" "$(sed -n 's/.* \([a-z0-9_]*: EER.*\)/\1/p' "$scores_dir/log/$name.log")" >&2
if [ -n "$utt2spk" ]; then
  log=$scores_dir/log/$name.statistics.log
  "${cmd[@]}" --num-threads "$num_threads" "$log" python3 -m sv.bin.compute_statistics \
    ${config:+--config "$config"} --num-threads "$num_threads" \
    "$trials" "$scores_dir/$name.txt" "$utt2spk" "$scores_dir/$name.json"
  printf '%s: %s\n' "$0" "$(sed -n 's/.* \([a-z0-9_]*: EER.*\)/\1/p' "$log")" >&2
fi
