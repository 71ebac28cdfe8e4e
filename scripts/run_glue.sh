#!/usr/bin/env bash
# Fine-tune BERT on a GLUE task, score it on the dev set and predict the dev and the test set, on one machine.
#
#   bash scripts/run_glue.sh [value ...] [name=value ...] [--dry-run]
#
# The values and their order are those of NVIDIA's script (16 of them; --dry-run lists them); "" keeps a default. A
# name=value may stand anywhere and wins over a position, so that a preset can be adjusted:
#
#   bash scripts/run_glue.sh results/checkpoints/ckpt_8601.pt num_gpu=1 precision=bf16
#   bash scripts/run_glue.sh task_name=sst-2 mode="train eval prediction"
#   source scripts/configs/glue_config.sh && bash scripts/run_glue.sh $(dgxa100-80g_8gpu_bf16 sst-2) --dry-run
#
# mode is train, eval (score), prediction (write the labels; predict means the same), or some of them: "train eval".
# data_dir and out_dir are by default those of task_name. batch_size is the number of sequences per GPU and optimizer
# step, before it is cut by gradient_accumulation_steps, and the batch of the evaluation. num_gpu=0 runs in one process
# on the CPU. init_checkpoint=None starts from random weights; vocab_file=None and config_file=None take what the
# checkpoint holds. --dry-run prints the values and the command and starts nothing. With resume_training=true a run
# continues from its newest checkpoint.
#
# Model, predictions and scores are in out_dir, the log is appended to out_dir/logfile. Exit code 2: a value or a path
# was refused.
#
# Environment: BERT_PREP_WORKING_DIR (default CODEDIR/data), VOCAB_FILE, PYTHON.

# shellcheck disable=SC2154  # the variables named in `parameters` are assigned by `declare`
set -euo pipefail
# shellcheck source=scripts/launch.sh
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"

positions=16

# Name, kind and default of each value, in order of position; the last two can be given by name only.
parameters() {
  local prepared=${BERT_PREP_WORKING_DIR:-$CODEDIR/data}
  cat <<END
init_checkpoint path $CODEDIR/checkpoints/bert_uncased.pt
data_dir path $prepared/download/glue/$(task_folder)/
vocab_file path ${VOCAB_FILE:-$prepared/download/google_pretrained_weights/uncased_L-24_H-1024_A-16/vocab.txt}
config_file path bert_configs/large.json
out_dir path $CODEDIR/results/$(task_folder)
task_name file_name mrpc
num_gpu count0 $(count_up_to_8_gpus)
batch_size count 16
gradient_accumulation_steps count 1
learning_rate number 2.4e-5
warmup_proportion fraction 0.1
epochs number 3
max_steps steps -1
precision precision fp16
seed count0 2
mode modes train eval
resume_training switch false
CODEDIR path $CODEDIR
END
}

# The folder of task_name as it is published.
task_folder() {
  local name=${task_name:-mrpc}
  case ${name,,} in
    cola) echo CoLA ;;
    mnli*) echo MNLI ;;
    *) echo "${name^^}" ;;
  esac
}

check_order() {
  if [[ ${max_steps:-} =~ ^(fp16|fp32|tf32|bf16)$ ]]; then
    fail "max_steps=$max_steps: position 13 is max_steps, precision, seed and mode follow it (lists of 15 lack it)"
  fi
}

check_paths() {
  check_machine run_glue.py num_gpu
  expect_checkpoint_or_none init_checkpoint
  expect_file_or_none vocab_file
  expect_file_or_none config_file
  [[ -d $data_dir ]] || fail "data_dir=$data_dir: no such directory (python data/download.py --dataset glue)"
}

build_command() {
  start_command "$num_gpu" run_glue.py
  command+=("--task_name=$task_name" "--data_dir=$data_dir" "--output_dir=$out_dir" --max_seq_length=128
    "--train_batch_size=$batch_size" "--eval_batch_size=$batch_size"
    "--gradient_accumulation_steps=$gradient_accumulation_steps" "--learning_rate=$learning_rate"
    "--warmup_proportion=$warmup_proportion" "--num_train_epochs=$epochs" "--max_steps=$max_steps" "--seed=$seed"
    "--json_summary=${out_dir%/}/dllogger.json" --disable_progress_bar)
  add_given init_checkpoint "$init_checkpoint"
  add_given vocab_file "$vocab_file"
  add_given config_file "$config_file"
  add_precision
  if wants train; then
    command+=(--do_train)
    add_if "$resume_training" resume_from_checkpoint
  fi
  if wants eval; then
    command+=(--do_eval)
  fi
  if wants predict; then
    command+=(--do_predict)
  fi
}

main() {
  read_arguments "$@"
  check_order
  complete_values
  expect_divisible batch_size gradient_accumulation_steps
  find_in_codedir config_file
  print_values
  printf '%-36s %s\n' "global batch" $((batch_size * (num_gpu > 0 ? num_gpu : 1)))
  build_command
  run_or_show out_dir logfile
}

main "$@"
