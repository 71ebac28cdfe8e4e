#!/usr/bin/env bash
# Pre-train BERT in two phases (128 tokens, then 512) on one machine.
#
#   bash scripts/run_pretraining.sh [value ...] [name=value ...] [--dry-run]
#
# The values and their order are those of NVIDIA's script (32 of them; --dry-run lists them); "" keeps a default. A
# name=value may stand anywhere and wins over a position, so that a preset can be adjusted:
#
#   source scripts/configs/pretrain_config.sh
#   bash scripts/run_pretraining.sh $(dgxa100-80g_8gpu_bf16) train_steps=1000 DATA_DIR_PHASE1=/data/128 --dry-run
#
# train_batch_size is the number of sequences per GPU and optimizer step, before it is split by
# gradient_accumulation_steps. num_gpus=0 trains in one process on the CPU. --dry-run prints the values and the commands
# and starts nothing. With resume_training=true a run continues from its newest checkpoint, in whichever phase.
# phases=1 or phases=2 runs one of them; the second starts where the first ended. numa_binding is torchrun's (node,
# socket, exclusive or core-complex): it binds each process to cores near its GPU.
#
# Where a phase's DATA_DIR is missing or empty its shards are prepared first, from text_source (a folder of .txt files) or
# wikipedia_source (a dump, or a folder as LDDL downloads it); an interrupted preparation resumes.
#
# Checkpoints are in CODEDIR/results/checkpoints, logs in CODEDIR/results. Exit code 2: a value or a path was refused.
#
# Environment: BERT_PREP_WORKING_DIR (default CODEDIR/data), VOCAB_FILE, PYTHON.

# shellcheck disable=SC2034,SC2154  # those named in `parameters` are assigned by `declare`, and read by phases.sh
set -euo pipefail
# shellcheck source=scripts/launch.sh
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
# shellcheck source=scripts/phases.sh
source "$(dirname "${BASH_SOURCE[0]}")/phases.sh"

positions=32

# Name, kind and default of each value, in order of position; the last four can be given by name only.
parameters() {
  local prepared=${BERT_PREP_WORKING_DIR:-$CODEDIR/data}
  cat <<END
train_batch_size count 8192
learning_rate number 6e-3
precision precision fp16
num_gpus count0 $(count_gpus)
warmup_proportion fraction 0.2843
train_steps count 7038
save_checkpoint_steps count 200
resume_training switch false
create_logfile switch true
accumulate_gradients switch true
gradient_accumulation_steps count 128
seed count0 12439
job_name file_name bert_lamb_pretraining
allreduce_post_accumulation switch true
allreduce_post_accumulation_fp16 switch true
train_batch_size_phase2 count 4096
learning_rate_phase2 number 4e-3
warmup_proportion_phase2 fraction 0.128
train_steps_phase2 count 1563
gradient_accumulation_steps_phase2 count 512
DATA_DIR_PHASE1 path $prepared/pretrain/phase1/unbinned/parquet/
DATA_DIR_PHASE2 path $prepared/pretrain/phase2/bin_size_64/parquet/
CODEDIR path $CODEDIR
init_checkpoint path None
wikipedia_source path $prepared/wikipedia/source/
num_dask_workers count $(getconf _NPROCESSORS_ONLN)
num_shards_per_worker count 128
num_workers count0 4
sample_ratio fraction 0.9
phase2_bin_size bin_size 64
masking masking static
BERT_CONFIG path bert_configs/large.json
text_source path None
vocab_file path ${VOCAB_FILE:-$prepared/download/google_pretrained_weights/uncased_L-24_H-1024_A-16/vocab.txt}
phases phases both
numa_binding numa none
END
}

# ---- values

check_order() {
  if [[ ${train_batch_size_phase2:-} =~ ^(true|false)$ ]]; then
    fail "train_batch_size_phase2=$train_batch_size_phase2: position 16 is no longer accumulate_into_fp16, leave it out"
  fi
}

# What follows from the values.
derive_values() {
  if [[ $accumulate_gradients == false ]]; then
    gradient_accumulation_steps=1
    gradient_accumulation_steps_phase2=1
  fi
  expect_divisible train_batch_size gradient_accumulation_steps
  expect_divisible train_batch_size_phase2 gradient_accumulation_steps_phase2
  find_in_codedir BERT_CONFIG
  match_allreduce_to_precision
  processes=$((num_gpus > 0 ? num_gpus : 1))
  num_blocks=$((num_shards_per_worker * num_dask_workers * processes))
  results=$CODEDIR/results
  checkpoints=$results/checkpoints
  todo=(1 2)
  if [[ $phases != both ]]; then
    todo=("$phases")
  elif phase1_is_done; then
    echo "phase 1 is done: ckpt_$(newest_checkpoint).pt"
    todo=(2)
  fi
}

check_paths() {
  local phase
  check_machine run_pretraining.py num_gpus
  ((num_gpus > 0)) || echo "note: num_gpus=0 trains on the CPU: try the preset cpu_fp32 of pretrain_config.sh"
  expect_file BERT_CONFIG
  check_vocabulary
  expect_checkpoint_or_none init_checkpoint
  for phase in "${todo[@]}"; do
    is_prepared "$phase" || check_source "$phase"
  done
}

# ---- phases

# build_command <phase>: set command
build_command() {
  start_command "$num_gpus" run_pretraining.py
  add_training_flags "$1"
  command+=(--json-summary "$results/dllogger.json")
  if [[ $1 == 2 ]]; then
    command+=(--phase2 --resume_from_checkpoint "--phase1_end_step=$train_steps")
  else
    add_if "$resume_training" resume_from_checkpoint
    add_given init_checkpoint "$init_checkpoint"
  fi
}

phase1_is_done() {
  [[ $resume_training == true ]] && (($(newest_checkpoint) >= train_steps))
}

# run_phase <phase> <sequences per process and step>
run_phase() {
  local log=/dev/null
  build_command "$1"
  if [[ $create_logfile == true ]]; then
    log=$results/$job_name.pyt_bert_pretraining_phase$1_${precision}_gbs$(($2 * processes)).$(date +%y%m%d%H%M%S).log
    echo "phase $1: logs written to $log"
  fi
  run_logged "$log" "${command[@]}"
  echo "finished phase $1"
}

main() {
  read_arguments "$@"
  check_order
  complete_values
  derive_values
  print_values
  printf '%-36s %s, %s\n' "global batch of phase 1, phase 2" \
    $((train_batch_size * processes)) $((train_batch_size_phase2 * processes))
  local phase batches=("" "$train_batch_size" "$train_batch_size_phase2")
  if [[ $dry_run == true ]]; then
    for phase in "${todo[@]}"; do
      if ! is_prepared "$phase"; then
        build_preparation "$phase"
        print_command "phase $phase, its shards" "${command[@]}"
      fi
      build_command "$phase"
      print_command "phase $phase" "${command[@]}"
    done
  fi
  check_paths
  if [[ $dry_run == false ]]; then
    mkdir -p "$checkpoints" 2>/dev/null || fail "CODEDIR=$CODEDIR: cannot make results/checkpoints in it"
    for phase in "${todo[@]}"; do
      is_prepared "$phase" || prepare "$phase"
      run_phase "$phase" "${batches[phase]}"
    done
  fi
}

main "$@"
