#!/usr/bin/env bash
# Counts what is there of a recipe's corpora and what was published; status 1 if a part is missing.
# Usage: local/check_corpora.sh [options] <egs-dir>
#  e.g.: local/check_corpora.sh --corpora /corpora --audio header egs/voxceleb
set -euo pipefail

# Begin configuration section.
corpora=             # folder that holds the corpora (conf/corpora.toml's root)
lists=               # folder of trial lists and speaker tables (the corpora themselves)
nj=2                 # parallel jobs
audio=none           # none|header|decode: whether each file is opened, or decoded to its end
allow_partial=false  # true|false: status 0 where parts are missing
# End configuration section.
. "$(dirname "$0")/../utils/parse_options.sh"
. "$(dirname "$0")/../path.sh"
[ $# -eq 1 ] || usage
[ -s "$1/conf/corpora.toml" ] || die "no such file $1/conf/corpora.toml"

exec python3 -m local.check_corpora --config "$1/conf/corpora.toml" --corpora "$corpora" \
  --lists "$lists" --nj "$nj" --audio "$audio" --allow-partial "$allow_partial"
