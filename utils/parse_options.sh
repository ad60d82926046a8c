#!/usr/bin/env bash
# Strict command-line options for the script that sources this file.
# The script's own "# Begin configuration section." block is the only place where an option exists:
# a line `name=default  # meaning` there makes --name (and --na-me for na_me); --help prints the block.
# A default of true or false admits only these two words, a whole number only whole numbers.
# Usage: . utils/parse_options.sh    (after the block; "$@" then holds the positional arguments)
#  e.g.: see steps/make_fbank.sh

# No `set` here: this runs inside the caller, whose head has `set -euo pipefail`.

# Print MESSAGE on stderr, beginning with the script's name, and stop with status 1.
die() {
  printf '%s: %s\n' "${0#./}" "$*" >&2
  exit 1
}

# Stop with status 1 if FILE is not given, not there, or empty; HINT says what to do.
need() {
  [ -n "$1" ] || die "$2"
  [ -e "$1" ] || die "no such file $1; $2"
  [ -s "$1" ] || die "$1 is empty; $2"
}

# Print a command-line mistake in one line and stop with status 2.
bad_option() {
  printf '%s: %s (see %s --help)\n' "${0#./}" "$*" "$0" >&2
  exit 2
}

# Print the head comment and the configuration block of the script.
print_help() {
  # The head: comment lines after the shebang, up to the first line that is none.
  awk 'NR > 1 { if ($0 !~ /^#/) exit; sub(/^# ?/, ""); print }' "$0"
  awk '/^# Begin configuration section\./ { on = 1; next }
       /^# End configuration section\./ { exit }
       on && match($0, /^[a-z_][a-z0-9_]*=/) {
         name = substr($0, 1, RLENGTH - 1); rest = substr($0, RLENGTH + 1)
         gsub(/_/, "-", name)
         text = ""; if (i = index(rest, "  # ")) { text = substr(rest, i + 4); rest = substr(rest, 1, i - 1) }
         gsub(/^["'\'']|["'\'' ]+$/, "", rest)
         if (!listed++) print "\nOptions (default):"
         printf "  --%-16s %s%s\n", name, text, (rest == "" ? "" : " (" rest ")")
       }' "$0"
}

# Print where a recipe's config NAME is: conf/NAME here, else next to what FOLDER (data/x) lies in.
find_config() {
  local own
  own=$(dirname "$(dirname "$2")")/conf/$1
  if [[ ! -s "conf/$1" && -s "$own" ]]; then
    printf '%s' "$own"
  else
    printf 'conf/%s' "$1"
  fi
}

# Print the help on stderr and stop with status 2: the positional arguments are wrong.
usage() {
  print_help >&2
  exit 2
}

_option_names=$(awk '/^# Begin configuration section\./ { on = 1; next }
                     /^# End configuration section\./ { exit }
                     on && match($0, /^[a-z_][a-z0-9_]*=/) { print substr($0, 1, RLENGTH - 1) }' "$0")
# The default, not the value that an earlier --name gave, says what is admitted.
declare -A _defaults=()
for _name in $_option_names; do _defaults[$_name]=${!_name}; done

while [ $# -gt 0 ]; do
  case "$1" in
    --help | -h)
      print_help
      exit 0
      ;;
    --)
      shift
      break
      ;;
    --*=*) bad_option "write '${1%%=*} ${1#*=}' instead of '$1'" ;;
    --*)
      _name=${1#--}
      _name=${_name//-/_}
      # Nothing but a name goes further: bash would evaluate 'x[$(command)]'.
      [[ "$_name" =~ ^[a-z_][a-z0-9_]*$ ]] || bad_option "unknown option $1"
      grep -qx -- "$_name" <<<"$_option_names" || bad_option "unknown option $1"
      [[ $# -ge 2 && "$2" != --* ]] || bad_option "option $1 needs a value"
      case "${_defaults[$_name]}" in
        true | false)
          [[ "$2" = true || "$2" = false ]] || bad_option "$1 must be true or false, not '$2'"
          ;;
        '' | *[!0-9]*) ;; # text: anything goes
        *) [[ "$2" =~ ^[0-9]+$ ]] || bad_option "$1 must be a whole number, not '$2'" ;;
      esac
      printf -v "$_name" '%s' "$2"
      shift 2
      ;;
    -?*) bad_option "unknown option $1" ;;
    *)
      # Kaldi stops here and leaves a later --option unread; that has cost people days.
      # What follows a literal -- belongs to another command, as all does with options_follow=true.
      for _word in "$@"; do
        [ "${options_follow:-false}" = false ] || break
        [ "$_word" != -- ] || break
        [[ "$_word" != --* ]] || bad_option "option $_word must come before the arguments"
      done
      break
      ;;
  esac
done
unset _option_names _defaults _name _word
