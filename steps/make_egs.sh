#!/usr/bin/env bash
# Makes the training set: filters, speaker map, held-out validation trials, index of every crop.
# Usage: steps/make_egs.sh [options] <data-dir> <egs-dir>
#  e.g.: steps/make_egs.sh --kinds "babble noise" egs/mini/data/mini_train egs/mini/data/egs
set -euo pipefail

# Begin configuration section.
config=  # training config (the recipe's conf/train.toml, table [set])
kinds=   # augmented copies to train on too: <data-dir>_<kind>
# End configuration section.
. "$(dirname "$0")/../utils/parse_options.sh"
. "$(dirname "$0")/../path.sh"
[ $# -eq 2 ] || usage
config=${config:-$(find_config train.toml "$2")}
need "$config" "give --config egs/<recipe>/conf/train.toml"

data_dir=$1
egs_dir=$2
dirs=("$data_dir")
for kind in $kinds; do dirs+=("${data_dir}_$kind"); done
for dir in "${dirs[@]}"; do
  need "$dir/feats.scp" "run stage 3 first"
done
python3 -m sv.bin.make_egs --config "$config" --kinds "$kinds" "$data_dir" "$egs_dir"
