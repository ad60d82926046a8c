#!/usr/bin/env bash
# Fetches, verifies and unpacks what may be fetched of the study's corpora without a login (MUSAN,
# RIRS_NOISES, CN-Celeb, VoxCeleb's lists); says which files of the others to request, and where to
# put them. Run again, it resumes where it broke off.
# Usage: local/download_corpora.sh [options] <corpora-dir>
#  e.g.: local/download_corpora.sh --only "musan rirs_noises" /corpora
set -euo pipefail

# Begin configuration section.
only=                       # tables of local/downloads.toml, with spaces (all)
table=local/downloads.toml  # what to fetch, from where
# End configuration section.
. "$(dirname "$0")/../utils/parse_options.sh"
. "$(dirname "$0")/../path.sh"
[ $# -eq 1 ] || usage
[ -s "$table" ] || die "no such file $table"

exec python3 -m local.download_corpora --only "$only" --table "$table" "$1"
