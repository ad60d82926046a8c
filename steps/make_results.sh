#!/usr/bin/env bash
# Collects the metrics and the energy of all systems into tables, advice, figures and a page
# (index.html), in <exp>/results. What is missing is listed below the tables, never counted as 0.
# Usage: steps/make_results.sh [options] <data> <exp>
#  e.g.: steps/make_results.sh egs/mini/data egs/mini/exp
#        steps/make_results.sh --carbon owid --country DEU --year 2023 egs/mini/data egs/mini/exp
set -euo pipefail

# Begin configuration section.
models=             # names in quotes (default: every model under <exp>)
allow_missing=true  # false: fail where a table lacks a figure
allow_mixed=false   # true: systems trained or scored by different settings too, named below tables
study=              # folder of published figures to compare with (none)
inference_sets=     # test sets of Table 2, in quotes, or "all" (the study's, else all)
carbon=             # CO2 at another factor: owid, fixed, rte or electricity_maps (the recorded one)
country=            # of that factor, ISO 3166 alpha-3
year=               # of that factor (the latest)
g_per_kwh=          # that factor, of --carbon fixed
# End configuration section.

. "$(dirname "$0")/../utils/parse_options.sh"
. "$(dirname "$0")/../path.sh"

[ $# -eq 2 ] || usage
data=$1
exp=$2
[ -d "$data" ] || die "no such folder $data: run stages 0 to 4 first"
[ -z "$study" ] || [ -d "$study" ] || die "no such folder $study: --study names published figures"

broken=false
# A stage that was killed left a journal and no sidecar. Not exp/energy: that one is running.
for dir in "$data/energy" "$exp"/*/energy; do
  if [ -d "$dir" ]; then
    # It names the journal that it cannot read; the others are read all the same.
    python3 -m sv.bin.meter --rebuild "$dir" || broken=true
  fi
done

# matplotlib keeps a list of the fonts; not in the home folder.
export MPLCONFIGDIR=$exp/results/.matplotlib
mkdir -p "$MPLCONFIGDIR"
options=(--models "$models" --allow-missing "$allow_missing" --allow-mixed "$allow_mixed")
options+=(--inference-sets "$inference_sets")
if [ -n "$study" ]; then options+=(--study "$study"); fi
if [ -n "$carbon" ]; then options+=(--carbon "$carbon"); fi
if [ -n "$country" ]; then options+=(--country "$country"); fi
if [ -n "$year" ]; then options+=(--year "$year"); fi
if [ -n "$g_per_kwh" ]; then options+=(--g-per-kwh "$g_per_kwh"); fi
python3 -m sv.bin.make_results "${options[@]}" "$data" "$exp"
[ "$broken" = false ] || die "the tables are in $exp/results, without the journals named above"
