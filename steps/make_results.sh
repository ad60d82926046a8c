#!/usr/bin/env bash
# Collects the metrics and the energy of all systems into tables, advice, figures and a page
# (index.html), in <exp>/results. What is missing is listed below the tables, never counted as 0.
# Usage: steps/make_results.sh [options] <data> <exp>
#  e.g.: steps/make_results.sh egs/mini/data egs/mini/exp
set -euo pipefail

# Begin configuration section.
models=             # names in quotes (default: every model under <exp>)
allow_missing=true  # false: fail where a table lacks a figure
allow_mixed=false   # true: systems trained or scored by different settings too, named below tables
study=              # folder of published figures to compare with (none)
inference_sets=     # test sets of Table 2, in quotes, or "all" (the study's, else all)
# End configuration section.

. utils/parse_options.sh
. ./path.sh

[ $# -eq 2 ] || usage
data=$1
exp=$2
[ -d "$data" ] || die "no such folder $data: run stages 0 to 4 first"
[ -z "$study" ] || [ -d "$study" ] || die "no such folder $study: --study names published figures"

# A stage that was killed left a journal and no sidecar. Not exp/energy: that one is running.
for dir in "$data/energy" "$exp"/*/energy; do
  if [ -d "$dir" ]; then
    python3 -m sv.bin.meter --rebuild "$dir"
  fi
done

# matplotlib keeps a list of the fonts; not in the home folder.
export MPLCONFIGDIR=$exp/results/.matplotlib
mkdir -p "$MPLCONFIGDIR"
options=(--models "$models" --allow-missing "$allow_missing" --allow-mixed "$allow_mixed")
options+=(--inference-sets "$inference_sets")
if [ -n "$study" ]; then options+=(--study "$study"); fi
python3 -m sv.bin.make_results "${options[@]}" "$data" "$exp"
