#!/usr/bin/env bash
# Start the container: a shell in it, or a command.
#
#   bash scripts/docker/launch.sh
#   bash scripts/docker/launch.sh --data /datasets/bert --results /scratch/results bash scripts/run_pretraining.sh 8192
#   bash scripts/docker/launch.sh --gpus 0,1 --dry-run nvidia-smi
#
#   --data DIR       what the container sees as /data, where data sets and shards are (default: data in the repository)
#   --results DIR    what it sees as /workspace/bert/results (default: results in the repository)
#   --gpus LIST      all, none or numbers with commas (default: all where nvidia-smi finds one)
#   --shm-size SIZE  its own shared memory, such as 8g (default: the host's; NCCL between the GPUs of a machine needs it)
#   --tag TAG        the image (default: bert)
#
# Files in the mounts belong to the caller. Environment: CONTAINER_ENGINE, docker or podman (default: what is installed).

# shellcheck disable=SC2154  # `read_options` assigns the variables
set -euo pipefail
# shellcheck source=scripts/docker/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

data=$ROOT/data results=$ROOT/results gpus=auto shm_size="" tag=bert
read_options "data results gpus shm_size tag" "$@"
find_engine docker podman
[[ $gpus =~ ^(auto|all|none|[0-9]+(,[0-9]+)*)$ ]] || fail "--gpus $gpus: expected all, none or numbers such as 0,1"
[[ $shm_size =~ ^([0-9]+[bkmgBKMG]?)?$ ]] || fail "--shm-size $shm_size: expected a size such as 8g"
[[ -d $data ]] || fail "--data $data: no such directory"
[[ $dry_run == true ]] || mkdir -p "$results" || fail "--results $results: cannot make this directory"
if [[ $gpus == auto ]]; then
  gpus=$( (($(count_gpus) > 0)) && echo all || echo none)
fi

# add_mount <host directory> <directory in the container>
add_mount() {
  local directory
  directory=$(realpath -m "$1")
  [[ $directory != *[,\"]* ]] || fail "$directory: a mount cannot have a comma or a double quote in its name"
  command+=(--mount "type=bind,source=$directory,target=$2")
}

# GPUs of docker are NVIDIA's runtime's, those of podman devices of the Container Device Interface.
add_gpus() {
  local list gpu
  if [[ $engine == docker ]]; then
    [[ $gpus == all ]] && command+=(--gpus all) || command+=(--gpus "\"device=$gpus\"")
  else
    IFS=, read -r -a list <<<"$gpus"
    for gpu in "${list[@]}"; do
      command+=(--device "nvidia.com/gpu=$gpu")
    done
  fi
}

command=("$engine" run --rm --init --network host --user "$(id -u):$(id -g)" --ulimit memlock=-1 --ulimit stack=67108864)
[[ $engine == docker ]] || command+=(--userns keep-id)
[[ ! -t 0 ]] || command+=(--interactive --tty)
[[ -z $shm_size ]] && command+=(--ipc host) || command+=(--shm-size "$shm_size")
[[ $gpus == none ]] || add_gpus
add_mount "$data" /data
add_mount "$results" /workspace/bert/results
command+=("$tag" "${rest[@]}")
run_or_print
