#!/usr/bin/env bash
# Fine-tune BERT on SQuAD 1.1 or 2.0, answer the dev set and score the answers, on one machine.
#
#   bash scripts/run_squad.sh [value ...] [name=value ...] [--dry-run]
#
# The values and their order are those of NVIDIA's script (14 of them; --dry-run lists them); "" keeps a default. A
# name=value may stand anywhere and wins over a position, so that a preset can be adjusted:
#
#   bash scripts/run_squad.sh results/checkpoints/ckpt_8601.pt 2.0 4 3e-5 0.1 bf16 8
#   source scripts/configs/squad_config.sh
#   bash scripts/run_squad.sh $(dgxa100-80g_8gpu_bf16) init_checkpoint=results/checkpoints/ckpt_8601.pt --dry-run
#   bash scripts/run_squad.sh mode=eval init_checkpoint=results/SQuAD/pytorch_model.bin
#
# mode is train, eval (answer and score), prediction (answer; predict means the same), or some of them: "train eval".
# squad_dir holds train-v1.1.json and dev-v1.1.json, or those of v2.0. batch_size is the number of sequences per GPU and
# optimizer step; gradient_accumulation_steps cuts it. num_gpu=0 runs in one process on the CPU. init_checkpoint=None
# starts from random weights; vocab_file=None and CONFIG_FILE=None take what the checkpoint holds. --dry-run prints the
# values and the command and starts nothing. With resume_training=true a run continues from its newest checkpoint.
#
# Model, predictions and scores are in OUT_DIR, the log is appended to OUT_DIR/logfile.txt. Exit code 2: a value or a
# path was refused.
#
# Environment: BERT_PREP_WORKING_DIR (default CODEDIR/data), VOCAB_FILE, PYTHON.

# shellcheck disable=SC2154  # the variables named in `parameters` are assigned by `declare`
set -euo pipefail
# shellcheck source=scripts/launch.sh
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"

positions=14

# Name, kind and default of each value, in order of position; the last three can be given by name only.
parameters() {
  local prepared=${BERT_PREP_WORKING_DIR:-$CODEDIR/data}
  cat <<END
init_checkpoint path $CODEDIR/checkpoints/bert_uncased.pt
epochs number 2.0
batch_size count 4
learning_rate number 3e-5
warmup_proportion fraction 0.1
precision precision fp16
num_gpu count0 $(count_up_to_8_gpus)
seed count0 1
squad_dir path $prepared/download/squad/v1.1
vocab_file path ${VOCAB_FILE:-$prepared/download/google_pretrained_weights/uncased_L-24_H-1024_A-16/vocab.txt}
OUT_DIR path $CODEDIR/results/SQuAD
mode modes train eval
CONFIG_FILE path bert_configs/large.json
max_steps steps -1
gradient_accumulation_steps count 1
resume_training switch false
CODEDIR path $CODEDIR
END
}

check_order() {
  if [[ ${warmup_proportion:-} =~ ^(fp16|fp32|tf32|bf16)$ ]]; then
    fail "warmup_proportion=$warmup_proportion: position 5 is warmup_proportion, precision and the rest follow it\
 (the older order of 12 values had none)"
  fi
}

# What follows from the values.
derive_values() {
  expect_divisible batch_size gradient_accumulation_steps
  find_in_codedir CONFIG_FILE
  version=1.1
  if ! has_questions 1.1 && has_questions 2.0; then
    version=2.0
  fi
}

# has_questions <version>: whether squad_dir has the files that mode needs
has_questions() {
  if wants train && [[ ! -f $squad_dir/train-v$1.json ]]; then
    return 1
  fi
  ! answers || [[ -f $squad_dir/dev-v$1.json ]]
}

answers() {
  wants eval || wants predict
}

check_paths() {
  check_machine run_squad.py num_gpu
  expect_checkpoint_or_none init_checkpoint
  expect_file_or_none vocab_file
  expect_file_or_none CONFIG_FILE
  [[ -d $squad_dir ]] || fail "squad_dir=$squad_dir: no such directory (python data/download.py --dataset squad)"
  has_questions "$version" ||
    fail "squad_dir=$squad_dir: mode=$mode needs train-v1.1.json to train, dev-v1.1.json to answer, or those of v2.0"
}

build_command() {
  start_command "$num_gpu" run_squad.py
  command+=("--output_dir=$OUT_DIR" "--learning_rate=$learning_rate" "--warmup_proportion=$warmup_proportion"
    "--num_train_epochs=$epochs" "--max_steps=$max_steps" "--seed=$seed" --max_seq_length=384 --doc_stride=128
    "--json_summary=${OUT_DIR%/}/dllogger.json" --disable_progress_bar)
  add_given init_checkpoint "$init_checkpoint"
  add_given vocab_file "$vocab_file"
  add_given config_file "$CONFIG_FILE"
  add_precision
  if wants train; then
    command+=(--do_train "--train_file=$squad_dir/train-v$version.json" "--train_batch_size=$batch_size"
      "--gradient_accumulation_steps=$gradient_accumulation_steps")
    add_if "$resume_training" resume_from_checkpoint
  fi
  if answers; then
    command+=(--do_predict "--predict_file=$squad_dir/dev-v$version.json" "--predict_batch_size=$batch_size")
  fi
  if wants eval; then
    command+=(--do_eval)
  fi
}

main() {
  read_arguments "$@"
  check_order
  complete_values
  derive_values
  print_values
  printf '%-36s %s\n' "SQuAD version" "$version" "global batch" $((batch_size * (num_gpu > 0 ? num_gpu : 1)))
  build_command
  run_or_show OUT_DIR logfile.txt
}

main "$@"
