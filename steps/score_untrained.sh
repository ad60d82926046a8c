#!/usr/bin/env bash
# Scores a trial list with the network as it was before training: what the training is worth.
# Usage: steps/score_untrained.sh [options] <exp-dir> <data-dir> <trials> <scores-dir>
#  e.g.: steps/score_untrained.sh exp/M data/mini_test data/trials/mini exp/M/scores
# Reads: <exp-dir>/final.pt <data-dir>/feats.scp <trials>
# Writes: <scores-dir>/<list>_cosine_untrained.txt <scores-dir>/<list>_cosine_untrained.json
set -euo pipefail

# Begin configuration section.
cmd=utils/run.py  # how jobs are run
nj=1              # number of parallel jobs
ngpu=0            # 0: CPU, N: N jobs with a GPU each, whatever nj
# End configuration section.
. "$(dirname "$0")/../utils/parse_options.sh"
. "$(dirname "$0")/../path.sh"
[ $# -eq 4 ] || usage

exp_dir=$1 data_dir=$2 trials=$3 scores_dir=$4
xvector_dir=$exp_dir/untrained/xvectors_$(basename "$data_dir")
steps/extract_xvectors.sh --cmd "$cmd" --nj "$nj" --ngpu "$ngpu" --untrained true \
  "$exp_dir" "$data_dir" "$xvector_dir"
steps/score_trials.sh --cmd "$cmd" --suffix _untrained --num-threads "$nj" \
  "$xvector_dir" "$trials" "$scores_dir"
