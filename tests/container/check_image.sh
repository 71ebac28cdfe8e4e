#!/usr/bin/env bash
# Build the images on a stand-in for python:3.11-slim and run them, without a container engine's service.
#
#   bash tests/container/check_image.sh          # as root on Debian or Ubuntu; installs buildah and mmdebstrap if missing
#   bash tests/container/check_image.sh training, or serving
#
# The stand-in is a minimal Debian with Python. The Dockerfiles are built as they are, with buildah. In the training image
# an ordinary user runs the health check and the quickstart in its smallest form; in the server's, an exported model
# answers a question, though there is no Triton in it; in the gateway's, the gateway starts. Prints times and sizes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

work=$(mktemp -d)
export CONTAINER_ENGINE=buildah BUILDAH_ISOLATION=chroot STORAGE_DRIVER=${STORAGE_DRIVER:-overlay}
export CONTAINERS_STORAGE_CONF=$work/storage.conf
printf '[storage]\ndriver = "%s"\ngraphroot = "%s"\nrunroot = "%s"\n' "$STORAGE_DRIVER" "$work/graph" "$work/run" >"$CONTAINERS_STORAGE_CONF"
trap 'buildah rm --all >/dev/null 2>&1 || true; rm -rf "$work"' EXIT

timed() {
  local began=$SECONDS
  "${@:2}" >"$work/log" 2>&1 || {
    tail -n 60 "$work/log" >&2
    echo "error: $1 failed" >&2
    exit 1
  }
  echo "$1: $((SECONDS - began)) s"
}

install_tools() {
  apt-get -qq update
  DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends buildah mmdebstrap
}

stand_in() {
  local container
  # shellcheck source=/dev/null
  mmdebstrap --quiet --variant=minbase --dpkgopt=force-unsafe-io --include=python3,python3-venv,python3-pip,ca-certificates \
    "$(source /etc/os-release && echo "$VERSION_CODENAME")" "$work/base.tar"
  container=$(buildah from scratch)
  buildah add --quiet "$container" "$work/base.tar" /
  buildah commit --quiet --format docker "$container" localhost/stand-in-python
  buildah rm "$container"
  rm "$work/base.tar"
}

# The certificates and wheels that pip is told of on this machine, by a file or the environment, are needed in the build
# too. pip lists the environment, which wins, first.
pip_settings() {
  printf '[global]\n'
  python3 -m pip config list | sed -n "s/^\(:env:\|global\)\.\([a-z-]*\)='\(.*\)'$/\2 = \3/p" |
    grep -E '^(cert|find-links) ' | awk '!seen[$1]++' || true
}

# pip_mounts: set mounts, what a build needs to install packages
pip_mounts() {
  local path
  mounts=(--pull=never --volume "$work/pip.conf:/etc/pip.conf:ro")
  pip_settings >"$work/pip.conf"
  while IFS= read -r path; do
    [[ ! -e $path ]] || mounts+=(--volume "$path:$path:ro")
  done < <(sed -n 's/^.* = //p' "$work/pip.conf")
}

# image <tag>: print its size, and set container
image() {
  printf '%s: %s, of which base: %s\n' "$1" "$(buildah images --format '{{.Size}}' "localhost/$1")" \
    "$(buildah images --format '{{.Size}}' localhost/stand-in-python)"
  container=$(buildah from --pull-never "localhost/$1")
}

# in_image <user> <command> [option of buildah run ...]
in_image() {
  buildah run --user "$1" "${@:3}" "$container" -- bash -euc "$2"
}

# as_set: run a Python script from stdin as the image's user
as_set() {
  buildah run "$@" "$container" -- python3 -
}

# ---- training

check_training() {
  timed "image built" bash scripts/docker/build.sh --base localhost/stand-in-python --tag localhost/bert -- "${mounts[@]}"
  image bert
  timed "health check" in_image 1000:1000 "python -m bert.doctor"
  # shellcheck disable=SC2016
  timed "quickstart of a few steps, another user" in_image 4321:4321 '
    python data/make_gazetteer.py --articles 200 --output results/quickstart/text
    PHASE1_STEPS=6 PHASE2_STEPS=3 bash scripts/quickstart.sh
    test -s results/quickstart/checkpoints/ckpt_9.pt'
}

# ---- serving

# build_serving <target>
build_serving() {
  buildah build --format docker --target "$1" --tag "localhost/bert-$1" --file triton/Dockerfile "${mounts[@]}" \
    --build-arg FROM_IMAGE_NAME=localhost/stand-in-python --build-arg GATEWAY_IMAGE_NAME=localhost/stand-in-python .
}

# export_tiny <python>: a model repository in $work/models, of random weights
export_tiny() {
  "$1" tests/container/tiny_checkpoint.py "$work/tiny.pt"
  "$1" triton/export.py --checkpoint "$work/tiny.pt" --task qa --output "$work/models" \
    --max_seq_length 64 --doc_stride 16 --max_query_length 16
  chmod -R a+rX "$work/models"
}

expect_config() {
  buildah inspect --type image --format '{{.Docker.Config.User}} {{.Docker.Config.Entrypoint}}' "localhost/$1" |
    grep -F "1000:1000 [python3 $2"
}

check_serving() {
  local python=${SERVING_PYTHON:-.venv/serving/bin/python}
  [[ -x $python ]] || timed "serving environment" bash triton/setup.sh
  timed "model exported" export_tiny "$python"
  timed "server image built" build_serving server
  timed "server image: user and command" expect_config bert-server triton/server.py
  image bert-server
  timed "engine and text front" as_set --volume "$work/models:/models:ro" <tests/container/ask_engine.py
  buildah rm "$container" >/dev/null
  timed "gateway image built" build_serving gateway
  timed "gateway image: user and command" expect_config bert-gateway triton/gateway.py
  image bert-gateway
  timed "gateway --help" buildah run "$container" -- python3 triton/gateway.py --help
  timed "gateway" as_set <tests/container/start_gateway.py
}

if ! command -v buildah >/dev/null || ! command -v mmdebstrap >/dev/null; then
  timed "buildah and mmdebstrap installed" install_tools
fi
timed "stand-in base image" stand_in
pip_mounts
for part in ${1:-training serving}; do
  "check_$part"
done
