#!/usr/bin/env bash
# What build.sh and launch.sh share; sourced by them.

# shellcheck disable=SC2034,SC2154  # variables that only the sourcing scripts read, or assign
# shellcheck source=scripts/launch.sh
source "$(dirname "${BASH_SOURCE[0]}")/../launch.sh"

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

# read_options <names> <words>: set the variables of --name VALUE, dry_run, and rest: all from the first other word on
read_options() {
  local known=" $1 " name
  shift
  dry_run=false rest=()
  while (($#)); do
    case $1 in
      -h | --help)
        sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
      --dry-run | --dry_run) dry_run=true ;;
      --)
        rest=("${@:2}")
        return
        ;;
      --*=*) set -- "" "${1%%=*}" "${1#*=}" "${@:2}" ;;
      --*)
        name=${1#--} name=${name//-/_}
        [[ $known == *" $name "* ]] || fail "$1: unknown option; --help lists them"
        (($# > 1)) || fail "$1: expected a value after it"
        declare -g "$name=$2"
        shift
        ;;
      *)
        rest=("$@")
        return
        ;;
    esac
    shift
  done
}

# find_engine <name ...>: set engine to CONTAINER_ENGINE, else to the first of these that is installed
find_engine() {
  local name
  engine=${CONTAINER_ENGINE:-}
  for name in "$@"; do
    [[ -n $engine ]] || ! command -v "$name" >/dev/null || engine=$name
  done
  [[ -n $engine ]] || fail "no container engine here: install one of: $*"
  [[ " $* " == *" $engine "* ]] || fail "CONTAINER_ENGINE=$engine: expected one of: $*"
}

run_or_print() {
  if [[ $dry_run == true ]]; then
    printf '%q ' "${command[@]}"
    echo
  else
    command -v "$engine" >/dev/null || fail "CONTAINER_ENGINE=$engine: not installed"
    exec "${command[@]}"
  fi
}
