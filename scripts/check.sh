#!/usr/bin/env bash
# Check style, types and shell scripts: bash scripts/check.sh
set -euo pipefail
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
setup_environment check prepare serve
cd "$ROOT"

failed=()
check() {
  echo "\$ $*"
  "$@" || failed+=("$1 $2")
}

shell_scripts=()
while IFS= read -r -d '' file; do
  shell_scripts+=("$file")
done < <(find . \( -name .git -o -name .venv -o -name results \) -prune -o \
  \( -name '*.sh' -o -path ./.ci/run -o -path ./run.sub \) -type f -print0)

check ruff check .
check ruff format --check .
check pyright --pythonpath "$VENV/bin/python"
check shellcheck --external-sources "${shell_scripts[@]}"
check hadolint Dockerfile triton/Dockerfile
if ((${#failed[@]})); then
  printf 'failed: %s\n' "${failed[@]}" >&2
  exit 1
fi
