#!/usr/bin/env bash
# Repairs a data directory: sorts its tables and keeps the utterances that all of them have.
# What was there before is kept in <data-dir>/.backup.
# Usage: utils/fix_data_dir.sh <data-dir>
#  e.g.: utils/fix_data_dir.sh data/train
set -euo pipefail

# Begin configuration section.
# End configuration section.
. "$(dirname "$0")/../utils/parse_options.sh"
. "$(dirname "$0")/../path.sh"
[ $# -eq 1 ] || usage

exec python3 -m sv.bin.recipe fix "$1"
