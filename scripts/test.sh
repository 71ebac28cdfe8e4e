#!/usr/bin/env bash
# Run the tests in the project's environment, making it where needed: bash scripts/test.sh [pytest arguments]
set -euo pipefail
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
setup_environment prepare report test check
cd "$ROOT"
# PyTorch for CPUs does not bring Triton, whose interpreter runs the GPU kernels there. -P: ./triton is not that package.
python -P -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("triton") is None)' ||
  python -m pip install --quiet --disable-pip-version-check --no-deps triton==3.9.0 ||
  echo "note: triton could not be installed: the tests of the GPU kernels will be skipped" >&2
python -m pytest -q "$@"
