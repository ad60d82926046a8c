#!/usr/bin/env bash
# Scores a trial list by every backend: <scores-dir>/<trials>_<backend><suffix>.txt, metrics as
# .json, DET curve as .det.json; with speakers also intervals, .boot.json and .hist.json.
# Usage: steps/score_trials.sh [options] <xvector-dir> <trials> <scores-dir>
#  e.g.: steps/score_trials.sh exp/M/xvectors_mini_test data/trials/mini exp/M/scores
# Reads: <config> <xvector-dir>/xvector.scp <cohort>/xvector.scp <trials> <trials>.models <utt2spk>
# Writes: <scores-dir>/<list>_<backends...><suffix>.txt
# Writes: <scores-dir>/<list>_<backends...><suffix>.json
# Writes: <scores-dir>/<list>_<backends...><suffix>.boot.json
set -euo pipefail

# Begin configuration section.
cmd=utils/run.py  # how the job is run
backends=cosine   # cosine, cosine_mean, as_norm; several in quotes
cohort=           # embeddings of training speakers (steps/extract_cohort.sh), not for cosine
config=           # scoring config (conf/score.toml; its defaults)
suffix=           # of the names of the results: _bf16
num_threads=1     # CPU threads
utt2spk=          # speakers of the list: with them also intervals and histogram
# End configuration section.
. "$(dirname "$0")/../utils/parse_options.sh"
. "$(dirname "$0")/../path.sh"
[ $# -eq 3 ] || usage

xvector_dir=$1 trials=$2 scores_dir=$3
need "$xvector_dir/xvector.scp" "run stage 6 first"
need "$trials" "run stage 1 first"
[ -z "$utt2spk" ] || need "$utt2spk" "run stage 1 first"
options=(--backends "$backends" --num-threads "$num_threads" --suffix "$suffix")
if [ -n "$cohort" ]; then options+=(--cohort "$cohort"); fi
if [ -n "$config" ]; then options+=(--config "$config"); fi
if [ -n "$utt2spk" ]; then options+=(--utt2spk "$utt2spk"); fi
name=$(basename "$trials")
results=()
for backend in $backends; do results+=("$scores_dir/${name}_$backend$suffix.json"); done
read -ra cmd <<<"$cmd"
"${cmd[@]}" --num-threads "$num_threads" "$scores_dir/log/$name$suffix.log" \
  python3 -m sv.bin.score_trials "${options[@]}" "$xvector_dir" "$trials" "$scores_dir"
python3 -m sv.bin.list_scores "${results[@]}" |
  while read -r line; do printf '%s: %s\n' "$0" "$line" >&2; done
