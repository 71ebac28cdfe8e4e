#!/usr/bin/env bash
# Make the project's virtual environment, or bring it up to date; instant where nothing has changed.
#
#   bash scripts/setup.sh [extra ...]       extras of pyproject.toml (default: report)
#   VENV=/somewhere bash scripts/setup.sh   instead of .venv in the repository root
#
# Other scripts source it and call `setup_environment <extra ...>`, after which python, pytest and the rest are the
# environment's. Versions are those of constraints.txt, or of the file CONSTRAINTS.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=${VENV:-$ROOT/.venv}
TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu

setup_environment() {
  local stamp hash installed="" extras
  [[ $VENV == /* ]] || VENV=$PWD/$VENV
  stamp=$VENV/.setup-stamp
  hash=$({ echo "$ROOT"; cat "$ROOT/pyproject.toml" "$ROOT/constraints.txt"; } | cksum)
  if [[ -f $stamp && -x $VENV/bin/python ]]; then
    { read -r _ && read -r installed; } <"$stamp" || true
  fi
  extras=$(union "$installed" "$*")
  if [[ ! -x $VENV/bin/python || "$(cat "$stamp" 2>/dev/null)" != "$hash"$'\n'"$extras" ]]; then
    create_environment
    install_packages "$extras"
    printf '%s\n%s\n' "$hash" "$extras" >"$stamp"
    notice_missing_compiler
  fi
  export VIRTUAL_ENV=$VENV PATH=$VENV/bin:$PATH
}

create_environment() {
  local python=${PYTHON:-python3}
  if [[ -x $VENV/bin/python ]] && "$VENV/bin/python" -c 'import pip' 2>/dev/null; then
    return
  fi
  command -v "$python" >/dev/null || fail "$python not found: install Python 3.11 or later, or set PYTHON"
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$("$python" --version) is too old: install Python 3.11 or later, or set PYTHON to one"
  "$python" -c 'import venv, ensurepip' 2>/dev/null ||
    fail "$python cannot make virtual environments: install its venv module (Debian, Ubuntu: apt install python3-venv)"
  echo "creating $VENV"
  "$python" -m venv "$VENV" || fail "could not create $VENV"
}

# install_packages <extras, one space between>
install_packages() {
  local options
  read -ra options <<<"$(torch_options)"
  echo "installing into $VENV (minutes the first time)"
  "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check "${options[@]}" \
    --constraint "${CONSTRAINTS:-$ROOT/constraints.txt}" --editable "${ROOT}[${1// /,}]" || fail "pip could not install the packages"
}

# torch_options: pip's options for a torch that fits this machine
torch_options() {
  needs_cpu_index || return 0
  if answers "$TORCH_CPU_INDEX/torch/"; then
    echo "--extra-index-url $TORCH_CPU_INDEX"
  else
    echo "note: no NVIDIA GPU here and $TORCH_CPU_INDEX does not answer: PyTorch may bring its CUDA packages" >&2
  fi
}

# On Linux the torch of PyPI brings gigabytes of CUDA packages, which a machine without an NVIDIA GPU has no use for.
needs_cpu_index() {
  [[ $(uname -s) == Linux ]] && ! command -v nvidia-smi >/dev/null || return 1
  local place
  for place in ${PIP_FIND_LINKS:-}; do
    if compgen -G "$place/torch-*+cpu*.whl" >/dev/null; then
      return 1
    fi
  done
}

# answers <address>: whether it can be read within five seconds
answers() {
  timeout 6 "$VENV/bin/python" -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=5)' "$1" 2>/dev/null
}

notice_missing_compiler() {
  command -v "${CXX:-g++}" >/dev/null || command -v clang++ >/dev/null ||
    echo "note: no C++ compiler here: torch.compile on the CPU needs one (Debian, Ubuntu: apt install g++)" >&2
}

# union <words> <words>: each word once, sorted
union() {
  # shellcheck disable=SC2086  # both are lists of words
  printf '%s\n' $1 $2 | LC_ALL=C sort -u | paste -sd ' ' -
}

fail() {
  echo "error: $1" >&2
  exit 2
}

# known_extras: those of pyproject.toml, one blank between
known_extras() {
  sed -n '/^\[project.optional-dependencies\]$/,/^$/s/^\([a-z]*\) = .*/\1/p' "$ROOT/pyproject.toml" | paste -sd ' ' -
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
  known=$(known_extras)
  if [[ ${1:-} == -h || ${1:-} == --help ]]; then
    sed -n '2,5s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    echo "extras: $known"
    exit 0
  fi
  for extra; do
    [[ " $known " == *" $extra "* ]] || fail "$extra: unknown extra, expected some of: $known"
  done
  setup_environment "${@:-report}"
  echo "ready: source $VENV/bin/activate"
fi
