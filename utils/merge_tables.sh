#!/usr/bin/env bash
# Merges the sorted tables of parallel jobs into one; if no part is newer, it keeps its time.
# Usage: utils/merge_tables.sh <merged-table> <part>...
#  e.g.: utils/merge_tables.sh data/train/feats.scp data/train/fbank/fbank.{1,2}.scp
set -euo pipefail

# Begin configuration section.
# End configuration section.
. "$(dirname "$0")/../utils/parse_options.sh"
[ $# -ge 2 ] || usage

merged=$1
shift
newer=false
for f in "$@"; do
  [ -e "$f" ] || die "no such file $f"
  # Archives made anew can have the very same table; what reads it must see that they are new.
  if [ "$f" -nt "$merged" ]; then newer=true; fi
done
rm -f "$merged.tmp"  # of a killed call, or a link
LC_ALL=C sort -o "$merged.tmp" -- "$@"
if [ "$newer" = false ] && cmp -s "$merged.tmp" "$merged"; then
  rm "$merged.tmp"
else
  mv "$merged.tmp" "$merged"
fi
