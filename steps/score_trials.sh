#!/usr/bin/env bash
# Scores a trial list by cosine: <scores-dir>/<name>.txt, metrics as .json, DET curve as .det.json.
# Usage: steps/score_trials.sh [options] <xvector-dir> <trials> <scores-dir>
#  e.g.: steps/score_trials.sh exp/M/xvectors_mini_test data/trials/mini exp/M/scores
set -euo pipefail

# Begin configuration section.
cmd=utils/run.py  # how the job is run
name=             # name of the results (<trials>_cosine)
# End configuration section.
. utils/parse_options.sh
. ./path.sh
[ $# -eq 3 ] || usage

xvector_dir=$1 trials=$2 scores_dir=$3
[ -s "$xvector_dir/xvector.scp" ] || die "no such file $xvector_dir/xvector.scp; run stage 6 first"
[ -s "$trials" ] || die "no such file $trials; run stage 1 first"
name=${name:-$(basename "$trials")_cosine}
read -ra cmd <<<"$cmd"
"${cmd[@]}" "$scores_dir/log/$name.log" \
  python3 -m sv.bin.score_trials "$xvector_dir" "$trials" "$scores_dir/$name"
printf '%s: %s\n' "$0" "$(sed -n 's/.* \([a-z0-9_]*: EER.*\)/\1/p' "$scores_dir/log/$name.log")" >&2
