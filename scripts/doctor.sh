#!/usr/bin/env bash
# Show what this machine has, what it lacks and what that costs; exit code 1 if training could not start here.
#
#   bash scripts/doctor.sh [--output_dir DIR] [--hosts HOST ...]       (--help says more)
set -euo pipefail
# shellcheck source=scripts/launch.sh
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"

CODEDIR=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=$(find_python)
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
  echo "training cannot start here: Python is $("$python" --version 2>&1 || true); install 3.11 or later, or set PYTHON" >&2
  exit 1
}
PYTHONPATH=$CODEDIR${PYTHONPATH:+:$PYTHONPATH} exec "$python" -m bert.doctor "$@"
