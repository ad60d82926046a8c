#!/usr/bin/env bash
# Collects the metrics and the energy of all systems into tables and figures, in <exp>/results.
# What is missing is listed below the tables, never counted as 0.
# Usage: steps/make_results.sh [options] <data> <exp>
#  e.g.: steps/make_results.sh egs/mini/data egs/mini/exp
set -euo pipefail

# Begin configuration section.
models=             # names in quotes (default: every model under <exp>)
allow_missing=true  # false: fail where a table lacks a figure
# End configuration section.

. utils/parse_options.sh
. ./path.sh

[ $# -eq 2 ] || usage
data=$1
exp=$2
[ -d "$data" ] || die "no such folder $data: run stages 0 to 4 first"

# A stage that was killed left a journal and no sidecar. Not exp/energy: that one is running.
for dir in "$data/energy" "$exp"/*/energy; do
  if [ -d "$dir" ]; then
    python3 -m sv.bin.meter --rebuild "$dir"
  fi
done

# matplotlib keeps a list of the fonts; not in the home folder.
export MPLCONFIGDIR=$exp/results/.matplotlib
mkdir -p "$MPLCONFIGDIR"
python3 -m sv.bin.make_results --models "$models" --allow-missing "$allow_missing" "$data" "$exp"
