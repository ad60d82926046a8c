#!/usr/bin/env bash
# Extracts the embeddings that score normalisation needs: some clean utterances of every training
# speaker, <xvector-dir>/{xvector.scp,utt2spk}. Which ones is in <egs-dir>/cohort.
# Usage: steps/extract_cohort.sh [options] <exp-dir> <data-dir> <egs-dir> <xvector-dir>
#  e.g.: steps/extract_cohort.sh exp/M data/mini_train data/egs exp/M/cohort/xvectors
# Reads: <config> <exp-dir>/final.pt <data-dir>/feats.scp <egs-dir>/utterances
# Writes: <xvector-dir>/xvector.scp <xvector-dir>/utt2spk
set -euo pipefail

# Begin configuration section.
cmd=utils/run.py  # how jobs are run
config=           # scoring config (the recipe's conf/score.toml)
nj=1              # number of parallel jobs
ngpu=0            # 0: CPU, N: N jobs with a GPU each, whatever nj
precision=fp32    # fp32|fp16|bf16: number format of the arithmetic
# End configuration section.
. "$(dirname "$0")/../utils/parse_options.sh"
. "$(dirname "$0")/../path.sh"
[ $# -eq 4 ] || usage
config=${config:-$(find_config score.toml "$3")}
need "$config" "give --config egs/<recipe>/conf/score.toml"

exp_dir=$1
data_dir=$2
egs_dir=$3
out=$4
need "$egs_dir/utterances" "run stage 4 first"
need "$data_dir/feats.scp" "run stage 3 first"
need "$exp_dir/final.pt" "run stage 5 first"
python3 -m sv.bin.recipe front-end "$exp_dir" "$data_dir"
python3 -m sv.bin.make_cohort "$config" "$data_dir" "$egs_dir/utterances" "$egs_dir/cohort"
steps/extract_xvectors.sh --cmd "$cmd" --nj "$nj" --ngpu "$ngpu" --precision "$precision" \
  "$exp_dir" "$egs_dir/cohort" "$out"
utils/merge_tables.sh "$out/utt2spk" "$egs_dir/cohort/utt2spk"
