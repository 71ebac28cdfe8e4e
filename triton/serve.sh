#!/usr/bin/env bash
# Serve a model repository and show a page: bash triton/serve.sh --model-repository model_repository
#
#   bash triton/serve.sh --model-repository DIR [--port 8080] [flag ...]      --help lists the flags
#   SERVER=docker bash triton/serve.sh --model-repository DIR [--port 8080]   in NVIDIA's container
#   SERVER=wheel  bash triton/serve.sh ...                                    from the pytriton wheel
#
# Without SERVER it takes the container where Docker is running and the wheel elsewhere.
set -euo pipefail
# shellcheck source=triton/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

server=${SERVER:-wheel}
if [[ -z ${SERVER:-} ]] && docker info >/dev/null 2>&1; then server=docker; fi
case $server in
  wheel)
    setup_serving >&2
    exec python "$ROOT/triton/serve.py" "$@"
    ;;
  docker) exec bash "$ROOT/triton/docker.sh" "$@" ;;
  *) fail "SERVER=$server: expected docker or wheel" ;;
esac
