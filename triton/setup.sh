#!/usr/bin/env bash
# Make the serving environment, or bring it up to date: the commands' packages, and Triton Inference Server from a wheel.
#
#   bash triton/setup.sh                    in .venv/serving
#   SERVING_VENV=/somewhere bash triton/setup.sh
#
# It is an environment of its own because the wheel needs NumPy 1. Other scripts source it and call setup_serving.
set -euo pipefail

VENV=${SERVING_VENV:-$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/.venv/serving}
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/setup.sh"

PYTRITON=nvidia-pytriton==0.7.0 # Triton 2.51 (24.10) with its python backend

# setup_serving [extra ...]: the extras of pyproject.toml beside `serve`
setup_serving() {
  mkdir -p "$VENV"
  CONSTRAINTS=$VENV/constraints.txt
  sed 's/^numpy==.*/numpy==1.26.4/' "$ROOT/constraints.txt" >"$CONSTRAINTS"
  setup_environment serve "$@"
  "$VENV/bin/python" -c 'import importlib.metadata as m, sys; sys.exit(m.version("nvidia-pytriton") != sys.argv[1])' \
    "${PYTRITON#*==}" 2>/dev/null ||
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --constraint "$CONSTRAINTS" "$PYTRITON" ||
    fail "the wheel $PYTRITON could not be installed: it is for Linux on x86-64 with Python 3.9 to 3.12"
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
  setup_serving "$@"
  echo "ready: source $VENV/bin/activate"
fi
