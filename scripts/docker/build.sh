#!/usr/bin/env bash
# Build the container's image.
#
#   bash scripts/docker/build.sh                               on NVIDIA's PyTorch image
#   bash scripts/docker/build.sh --base python:3.11-slim       for machines without a GPU
#   bash scripts/docker/build.sh --tag bert:mine --dry-run     print the command
#   bash scripts/docker/build.sh -- --no-cache                 words after -- are passed to the engine
#
# Environment: CONTAINER_ENGINE, docker or podman or buildah (default: the first of them that is installed).

# shellcheck disable=SC2154  # `read_options` assigns the variables
set -euo pipefail
# shellcheck source=scripts/docker/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

base="" tag=bert
read_options "base tag" "$@"
find_engine docker podman buildah

command=("$engine" build --tag "$tag" --file "$ROOT/Dockerfile")
[[ $engine == docker ]] || command+=(--format docker) # OCI images have no health check
[[ -z $base ]] || command+=(--build-arg "FROM_IMAGE_NAME=$base")
command+=("${rest[@]}" "$ROOT")
run_or_print
