#!/usr/bin/env bash
# Merges the sorted tables of parallel jobs into one; an unchanged result keeps its time.
# Usage: utils/merge_tables.sh <merged-table> <part>...
#  e.g.: utils/merge_tables.sh data/train/feats.scp data/train/fbank/fbank.{1,2}.scp
set -euo pipefail

# Begin configuration section.
# End configuration section.
. utils/parse_options.sh
[ $# -ge 2 ] || usage

merged=$1
shift
for f in "$@"; do [ -e "$f" ] || die "no such file $f"; done
LC_ALL=C sort -o "$merged.tmp" -- "$@"
if cmp -s "$merged.tmp" "$merged"; then rm "$merged.tmp"; else mv "$merged.tmp" "$merged"; fi
