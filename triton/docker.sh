#!/usr/bin/env bash
# Serve a model repository in containers: Triton on NVIDIA's image, closed in, and the gateway in front of it.
#
#   bash triton/docker.sh --model-repository DIR
#   bash triton/docker.sh --model-repository DIR --port 8081 --dry-run       print the commands
#
#   --model-repository DIR  what triton/export.py wrote; user 1000 must be able to read it
#   --host ADDRESS          address of the public port (default: 127.0.0.1; all addresses: 0.0.0.0)
#   --port N                the public port (default: 8080)
#   --allowed-host NAME     a name that browsers may call it by, besides localhost
#   --rate N                requests a second from one address (default: 100; 0 = any number)
#
# It runs in the foreground: SIGTERM or Ctrl-C ends all, SIGHUP loads new versions of the models.
# Environment: FROM_IMAGE_NAME and GATEWAY_IMAGE_NAME, other base images; ENGINE="onnxruntime torch", for PyTorch's formats.

# shellcheck disable=SC2154  # `read_options` assigns the variables
set -euo pipefail
# shellcheck source=scripts/docker/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/docker/common.sh"

model_repository="" host=127.0.0.1 port=8080 allowed_host=localhost rate=100
read_options "model_repository host port allowed_host rate" "$@"
((${#rest[@]} == 0)) || fail "${rest[0]}: unknown word; --help lists the options"
[[ -n $model_repository ]] || fail "--model-repository: expected the folder that triton/export.py wrote"
compgen -G "$model_repository/*/config.pbtxt" >/dev/null ||
  fail "--model-repository $model_repository: holds no model; triton/export.py writes one"
[[ $host =~ ^[0-9.]+$ ]] || fail "--host $host: expected an IPv4 address"
[[ $port =~ ^[1-9][0-9]{0,4}$ ]] || fail "--port $port: expected 1 to 65535"
((port < 65536)) || fail "--port $port: expected 1 to 65535"
[[ $allowed_host =~ ^[A-Za-z0-9.-]+$ ]] || fail "--allowed-host $allowed_host: expected a host name without a port"
[[ $rate =~ ^[0-9]+(\.[0-9]+)?$ ]] || fail "--rate $rate: expected a number from 0"
closed=$(find "$model_repository" ! -user 1000 \( -type d ! -perm -o=rx -o -type f ! -perm -o=r \) -print -quit)
[[ -z $closed ]] || fail "--model-repository $model_repository: user 1000 cannot read $closed"

MODEL_REPOSITORY=$(realpath "$model_repository")
export MODEL_REPOSITORY BERT_SERVE_HOST=$host BERT_SERVE_PORT=$port BERT_SERVE_ALLOWED_HOST=$allowed_host BERT_SERVE_RATE=$rate
compose=(docker compose --file "$ROOT/triton/compose.yml")
start=("${compose[@]}" up --detach --build --wait)
if [[ $dry_run == true ]]; then
  env | grep -E '^(MODEL_REPOSITORY|BERT_SERVE_(HOST|PORT|ALLOWED_HOST|RATE))=' | LC_ALL=C sort
  printf '%q ' "${start[@]}"
  echo
  exit 0
fi

command -v docker >/dev/null || fail "docker is not installed; without it: SERVER=wheel bash triton/serve.sh"
docker compose version >/dev/null 2>&1 || fail "docker has no compose plugin (Debian, Ubuntu: docker-compose-plugin)"
docker info >/dev/null 2>&1 || fail "docker's service does not answer, or this user may not use it"
BERT_SERVE_ADMIN_KEY=$(head -c 24 /dev/urandom | base64 | tr '+/' '-_')
export BERT_SERVE_ADMIN_KEY

# in_background <command>: wait for it; a signal ends the wait, and its trap runs
in_background() {
  "$@" &
  child=$!
  wait "$child"
}

stop() {
  trap '' TERM INT
  [[ -z ${child:-} ]] || kill "$child" 2>/dev/null || true
  "${compose[@]}" down --timeout 20
}

trap stop EXIT
trap 'exit 0' TERM INT
trap '' HUP
if ! in_background "${start[@]}"; then
  "${compose[@]}" logs --tail 20 >&2
  fail "the containers did not start, or no model answers"
fi
trap '"${compose[@]}" kill --signal HUP server' HUP
echo "ready: http://$host:$port"
while :; do # a signal that is trapped ends the wait, not the log
  in_background "${compose[@]}" logs --follow --tail 20 || true
  sleep 1
done
