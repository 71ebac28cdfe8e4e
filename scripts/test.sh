#!/usr/bin/env bash
# Run the tests in the project's environment, making it where needed: bash scripts/test.sh [pytest arguments]
set -euo pipefail
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
setup_environment report test check
cd "$ROOT"
python -m pytest -q "$@"
