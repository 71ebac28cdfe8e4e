#!/usr/bin/env bash
# Measure everything that needs a GPU, within eight minutes, and write a table of figures and goals.
#
#   bash scripts/gpu_check.sh [--output FILE] [--parts PART ...] [--minutes N]      (--help says more)
set -euo pipefail
# shellcheck source=scripts/launch.sh
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"

CODEDIR=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
exec "$(find_python)" "$CODEDIR/benchmarks/gpu_check.py" "$@"
