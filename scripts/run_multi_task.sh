#!/usr/bin/env bash
# Fine-tune one BERT on several GLUE tasks at once, with adapters, and score it on all of them, on one machine.
#
#   bash scripts/run_multi_task.sh [value ...] [name=value ...] [--dry-run]
#
# The values and their order are those of scripts/run_glue.sh (16 of them; --dry-run lists them), with the published
# recipe of BERT and PALs as defaults; "" keeps a default. A name=value may stand anywhere and wins over a position:
#
#   bash scripts/run_multi_task.sh results/ckpt_8601.pt precision=bf16
#   bash scripts/run_multi_task.sh tasks=cola,rte,mrpc adapter=low_rank sample=sqrt mode="train eval prediction"
#   bash scripts/run_multi_task.sh multi=false init_checkpoint=results/multi_task/best_model/pytorch_model.bin mode=eval
#
# multi=true starts from a plain BERT: adapters and heads are new. adapter=None takes what config_file asks for. mode,
# batch_size, num_gpu, None and resume_training mean what they mean there. --dry-run prints the values and the command
# and starts nothing. Models, tables and a folder for each task are in out_dir, the log is appended to out_dir/logfile.
# Exit code 2: a value or a path was refused.
#
# Environment: BERT_PREP_WORKING_DIR (default CODEDIR/data), VOCAB_FILE, PYTHON.

# shellcheck disable=SC2154  # the variables named in `parameters` are assigned by `declare`
set -euo pipefail
# shellcheck source=scripts/launch.sh
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"

positions=16

# Name, kind and default of each value, in order of position; those after mode can be given by name only.
parameters() {
  local prepared=${BERT_PREP_WORKING_DIR:-$CODEDIR/data}
  cat <<END
init_checkpoint path $CODEDIR/checkpoints/bert_uncased.pt
data_dir path $prepared/download/glue/
vocab_file path ${VOCAB_FILE:-$prepared/download/google_pretrained_weights/uncased_L-24_H-1024_A-16/vocab.txt}
config_file path bert_configs/base.json
out_dir path $CODEDIR/results/multi_task
tasks file_name all
num_gpu count0 $(($(count_gpus) > 0))
batch_size count 32
gradient_accumulation_steps count 1
learning_rate number 2e-5
warmup_proportion fraction 0.1
epochs number 25
max_steps steps -1
precision precision fp16
seed count0 42
mode modes train eval
adapter file_name pals
sample file_name anneal
mixed_batches switch false
freeze switch false
multi switch true
resume_training switch false
CODEDIR path $CODEDIR
END
}

check_paths() {
  check_machine run_multi_task.py num_gpu
  expect_checkpoint_or_none init_checkpoint
  expect_file_or_none vocab_file
  expect_file_or_none config_file
  [[ -d $data_dir ]] || fail "data_dir=$data_dir: no such directory (python data/download.py --dataset glue)"
}

build_command() {
  start_command "$num_gpu" run_multi_task.py
  command+=("--tasks=$tasks" "--data_dir=$data_dir" "--output_dir=$out_dir" --max_seq_length=128
    "--train_batch_size=$batch_size" "--eval_batch_size=$batch_size"
    "--gradient_accumulation_steps=$gradient_accumulation_steps" "--learning_rate=$learning_rate"
    "--warmup_proportion=$warmup_proportion" "--num_train_epochs=$epochs" "--max_steps=$max_steps" "--seed=$seed"
    "--sample=$sample" "--json_summary=${out_dir%/}/dllogger.json" --disable_progress_bar)
  add_given init_checkpoint "$init_checkpoint"
  add_given vocab_file "$vocab_file"
  add_given config_file "$config_file"
  add_given adapter "$adapter"
  add_precision
  add_if "$multi" multi
  if wants train; then
    command+=(--do_train)
    add_if "$mixed_batches" mixed_batches
    add_if "$freeze" freeze
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
  complete_values
  expect sample '^(prop|sqrt|anneal|rr)$' "prop, sqrt, anneal or rr"
  expect_divisible batch_size gradient_accumulation_steps
  find_in_codedir config_file
  print_values
  printf '%-36s %s\n' "global batch" $((batch_size * (num_gpu > 0 ? num_gpu : 1)))
  build_command
  run_or_show out_dir logfile
}

main "$@"
