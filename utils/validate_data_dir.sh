#!/usr/bin/env bash
# Checks a data directory: tables present, sorted, each utterance in all of them, ids begin with
# their speaker. Status 1 and what is wrong, a line each, if it is not valid.
# Usage: utils/validate_data_dir.sh [options] <data-dir>
#  e.g.: utils/validate_data_dir.sh --require "wav.scp feats.scp" data/train
#        utils/validate_data_dir.sh --no-feats --no-text data/train
set -euo pipefail

# Begin configuration section.
require=           # tables that must be there besides utt2spk and spk2utt
no_feats=false     # as in Kaldi, without a value: feats.scp and utt2num_frames are not looked at
no_text=false      # text is not looked at
no_wav=false       # wav.scp is not looked at
no_spk_sort=false  # the utterances of a speaker need not stand together
# End configuration section.
words=()
for word in "$@"; do
  words+=("$word")
  if [[ "$word" =~ ^--no[-_](feats|text|wav|spk[-_]sort)$ ]]; then words+=(true); fi
done
set -- "${words[@]}"
. "$(dirname "$0")/../utils/parse_options.sh"
. "$(dirname "$0")/../path.sh"
[ $# -eq 1 ] || usage

skip=()
if [ "$no_feats" = true ]; then skip+=(feats.scp utt2num_frames); fi
if [ "$no_text" = true ]; then skip+=(text); fi
if [ "$no_wav" = true ]; then skip+=(wav.scp); fi
exec python3 -m sv.bin.recipe validate --require "$require" --skip "${skip[*]}" \
  --no-spk-sort "$no_spk_sort" "$1"
