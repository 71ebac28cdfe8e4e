#!/usr/bin/env bash
# How a job of Slurm runs its commands: steps of srun, in a container where there is one, requeued at the time limit.
#
# It is sourced after launch.sh by a batch script that has
#
#   image, cpu_bind      container image or None; srun's --cpu-bind
#   newest_checkpoint    a function that prints how far the job has come, as far as it is saved
#
#   trap_signals; find_runtime; list_mounts /data; build_step 4 32    # step: srun and its options
#   export_meeting_point
#   run_step "${step[@]}" python train.py                             # requeues the job when the limit is near

# shellcheck disable=SC2034,SC2154  # variables that the sourcing scripts read, or assign

stopped=false cancelled=false child="" mounts=""

# ---- commands

# build_step <nodes> <tasks>: set step, the words before a command that run it as so many tasks
build_step() {
  local tasks_per_node=$(($2 / $1)) cpus
  step=(srun "--nodes=$1" "--ntasks=$2" "--ntasks-per-node=$tasks_per_node" --kill-on-bad-exit=1)
  cpus=$((${SLURM_CPUS_ON_NODE:-0} / tasks_per_node))
  if ((cpus > 0)); then
    step+=("--cpus-per-task=$cpus" "--cpu-bind=$cpu_bind")
  fi
  if [[ $runtime == pyxis ]]; then
    step+=("--container-image=$image" "--container-workdir=$PWD" "--container-mounts=$mounts")
  elif [[ $runtime != none ]]; then
    step+=("$runtime" exec --nv --pwd "$PWD" --bind "$mounts" "$image")
  fi
}

# Set runtime, what runs the container: pyxis, apptainer or singularity; none: the environment of this machine
find_runtime() {
  runtime=none
  [[ $image != None ]] || return 0
  if srun --help 2>&1 | grep -q -e --container-image; then
    runtime=pyxis
  elif runtime=$(command -v apptainer || command -v singularity); then
    [[ -e $image || $image == *://* ]] || image=docker://${image/\#//}
  else
    runtime=none
    echo "note: docker_image=$image is not used: neither pyxis nor Apptainer is here" >&2
  fi
}

# list_mounts <paths>: set mounts, what a container sees of the machine, under the names that it has outside
list_mounts() {
  local place other
  local -a listed=()
  for place in "$@"; do
    [[ $place == /* ]] || continue # others are taken for parts of the current directory
    for other in "${listed[@]}"; do
      [[ $place/ != "$other"/* ]] || continue 2
    done
    [[ $place != *[,:]* ]] || fail "$place: a container cannot be given a path with , or : in it"
    listed+=("$place")
    mounts+=${mounts:+,}$place:$place
  done
}

# ---- the run

# srun's processes find each other at the first node; the port is the job's own.
export_meeting_point() {
  MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
  MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
  export MASTER_ADDR MASTER_PORT
}

# SIGUSR1 goes to srun, which hands it to every process. SIGTERM, at scancel or preemption, Slurm sends to them itself.
trap_signals() {
  trap 'stopped=true; echo "the time limit is near: saving"; [[ -z $child ]] || kill -USR1 "$child" || true' USR1
  trap 'cancelled=true' TERM
}

# run_step <command>: to its end, or until the time limit is near; only a command that ended well is returned from
#
# One that broke off (a killed process, a failed GPU) starts anew, unless it saved nothing since its start: what ends it
# would end it again.
run_step() {
  local status saved
  saved=$(newest_checkpoint)
  [[ $stopped == false ]] || requeue
  "$@" &
  child=$!
  wait_for "$child"
  child=""
  if [[ $cancelled == true ]]; then
    echo "cancelled: Slurm decides what happens next" >&2
    exit 143
  elif [[ $stopped == true ]] && ((status == 0 || status > 128)); then # above: a signal before anything was to be saved
    requeue
  elif ((status != 0)); then
    echo "error: the step ended with exit code $status" >&2
    [[ $status == 2 || $(newest_checkpoint) == "$saved" ]] || requeue # 2: a value or a file was refused
    exit "$status"
  fi
}

requeue() {
  scontrol requeue "$SLURM_JOB_ID" ||
    fail "scontrol requeue $SLURM_JOB_ID: refused; to continue, submit again with the same directory of checkpoints"
  echo "requeued: start $((${SLURM_RESTART_COUNT:-0} + 2)) continues from the newest checkpoint"
  exit 0
}
