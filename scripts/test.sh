#!/usr/bin/env bash
# Run the tests in the project's environment, making it where needed.
#
#   bash scripts/test.sh                    every test; what this machine cannot run is listed at the end
#   bash scripts/test.sh --fast             without the tests marked slow, which start processes that take seconds
#   bash scripts/test.sh [pytest arguments] for example tests/data, -k mask, or -n0 to run in one process
#
# pytest-xdist deals the test files out to one process for each core, at most 8; each process computes with one thread.
set -euo pipefail
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
setup_environment prepare report test check serve
cd "$ROOT"
# PyTorch for CPUs does not bring Triton, whose interpreter runs the GPU kernels there. -P: ./triton is not that package.
python -P -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("triton") is None)' ||
  python -m pip install --quiet --disable-pip-version-check --no-deps triton==3.9.0 ||
  echo "note: triton could not be installed: the tests of the GPU kernels will be skipped" >&2

options=(-q -n auto --maxprocesses=8 --dist=loadfile --no-loadscope-reorder)
for argument; do
  if [[ $argument == --fast ]]; then
    options+=(-m "not slow")
  else
    options+=("$argument")
  fi
done
python -m pytest "${options[@]}"
