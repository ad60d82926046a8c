#!/usr/bin/env bash
# Checks a data directory: tables present, sorted, each utterance in all of them, ids begin with
# their speaker. Status 1 and what is wrong, a line each, if it is not valid.
# Usage: utils/validate_data_dir.sh [options] <data-dir>
#  e.g.: utils/validate_data_dir.sh --require "wav.scp feats.scp" data/train
set -euo pipefail

# Begin configuration section.
require=  # tables that must be there besides utt2spk and spk2utt
# End configuration section.
. utils/parse_options.sh
. ./path.sh
[ $# -eq 1 ] || usage

exec python3 -m sv.bin.recipe validate --require "$require" "$1"
