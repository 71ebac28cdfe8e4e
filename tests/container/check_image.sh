#!/usr/bin/env bash
# Build the image on a stand-in for python:3.11-slim and train in it, without a container engine's service.
#
#   bash tests/container/check_image.sh          # as root on Debian or Ubuntu; installs buildah and mmdebstrap if missing
#
# The stand-in is a minimal Debian with Python. The Dockerfile is built as it is, with buildah; in the image an ordinary
# user then runs the health check and the quickstart in its smallest form. Prints times and size.
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
  mmdebstrap --quiet --variant=minbase --dpkgopt=force-unsafe-io --include=python3,python3-venv,ca-certificates \
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

build() {
  local mounts=(--volume "$work/pip.conf:/etc/pip.conf:ro") path
  pip_settings >"$work/pip.conf"
  while IFS= read -r path; do
    [[ ! -e $path ]] || mounts+=(--volume "$path:$path:ro")
  done < <(sed -n 's/^.* = //p' "$work/pip.conf")
  bash scripts/docker/build.sh --base localhost/stand-in-python --tag localhost/bert -- --pull=never "${mounts[@]}"
}

# in_image <user> <command>
in_image() {
  buildah run --user "$1" "$container" -- bash -euc "$2"
}

if ! command -v buildah >/dev/null || ! command -v mmdebstrap >/dev/null; then
  timed "buildah and mmdebstrap installed" install_tools
fi
timed "stand-in base image" stand_in
timed "image built" build
printf 'image: %s, of which base: %s\n' \
  "$(buildah images --format '{{.Size}}' localhost/bert)" "$(buildah images --format '{{.Size}}' localhost/stand-in-python)"
container=$(buildah from --pull-never localhost/bert)
timed "health check" in_image 1000:1000 "python -m bert.doctor"
timed "quickstart of a few steps, another user" in_image 4321:4321 '
  python data/make_gazetteer.py --articles 200 --output results/quickstart/text
  PHASE1_STEPS=6 PHASE2_STEPS=3 bash scripts/quickstart.sh
  test -s results/quickstart/checkpoints/ckpt_9.pt'
