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
# and starts nothing. With resume_training=true a run goes on from its newest checkpoint, in whichever phase that is.
#
# Where a phase's DATA_DIR is missing or empty its shards are prepared first, from text_source (a folder of .txt files) or
# wikipedia_source (a dump, or a folder as LDDL downloads it); a preparation that was interrupted goes on.
#
# Checkpoints are in CODEDIR/results/checkpoints, logs in CODEDIR/results. Exit code 2: a value or a path was refused.
#
# Environment: BERT_PREP_WORKING_DIR (default CODEDIR/data), VOCAB_FILE, PYTHON.

# shellcheck disable=SC2154  # the variables named in `parameters` are assigned by `declare`
set -euo pipefail

# Name, kind and default of each value, in order of position; the last two can be given by name only.
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
END
}

# check_kind <name> <kind>
check_kind() {
  case $2 in
    count) expect "$1" '^[1-9][0-9]*$' "a whole number from 1" ;;
    count0) expect "$1" '^(0|[1-9][0-9]*)$' "a whole number from 0" ;;
    number) expect "$1" '^([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?$' "a number such as 6e-3" ;;
    fraction) expect "$1" '^(0?\.[0-9]+|0\.?|1(\.0*)?)$' "a number from 0 to 1" ;;
    switch) expect "$1" '^(true|false)$' "true or false" ;;
    precision) expect "$1" '^(fp16|fp32|tf32|bf16)$' "fp16, fp32, tf32 or bf16" ;;
    bin_size) expect "$1" '^(none|32|64|128|256|512)$' "none, 32, 64, 128, 256 or 512" ;;
    masking) expect "$1" '^(static|dynamic)$' "static or dynamic" ;;
    file_name) expect "$1" '^[^/]+$' "a file name without /" ;;
  esac
}

# expect <name> <regular expression> <in words>
expect() {
  [[ ${!1} =~ $2 ]] || fail "$1=${!1}: expected $3"
}

fail() {
  echo "error: $1" >&2
  exit 2
}

count_gpus() {
  if command -v nvidia-smi >/dev/null; then
    nvidia-smi -L 2>/dev/null | grep -c '^GPU' || true
  else
    echo 0
  fi
}

# ---- values

# read_arguments <words>: set dry_run and the variables that were given
read_arguments() {
  local word position=0 listed
  local -a positional=("${names[@]:0:32}") named=()
  listed=" ${names[*]} "
  unset "${names[@]}" # the environment may have a variable of such a name
  dry_run=false
  for word in "$@"; do
    if [[ $word == --dry-run || $word == --dry_run ]]; then
      dry_run=true
    elif [[ $word == --help || $word == -h ]]; then
      sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
      exit 0
    elif [[ $word =~ ^([A-Za-z_][A-Za-z0-9_]*)= ]]; then
      [[ $listed == *" ${BASH_REMATCH[1]} "* ]] || fail "$word: unknown name, expected one of:$listed"
      named+=("$word")
    elif [[ $word == -* ]]; then
      fail "$word: unknown option, expected values, name=value, --dry-run or --help"
    else
      ((position < ${#positional[@]})) || fail "$word: more than ${#positional[@]} values"
      declare -g "${positional[position++]}=$word"
    fi
  done
  for word in "${named[@]}"; do
    declare -g "$word"
  done
}

# Give a default to what was not given, or given as "", and check the rest.
complete_values() {
  local name kind value
  if [[ ${train_batch_size_phase2:-} =~ ^(true|false)$ ]]; then
    fail "train_batch_size_phase2=$train_batch_size_phase2: position 16 is no longer accumulate_into_fp16, leave it out"
  fi
  CODEDIR=${CODEDIR:-$(default_codedir)}
  while read -r name kind value; do
    declare -g "$name=${!name:-$value}"
    check_kind "$name" "$kind"
  done < <(parameters)
  if [[ $accumulate_gradients == false ]]; then
    gradient_accumulation_steps=1
    gradient_accumulation_steps_phase2=1
  fi
  expect_divisible train_batch_size gradient_accumulation_steps
  expect_divisible train_batch_size_phase2 gradient_accumulation_steps_phase2
}

default_codedir() {
  if [[ -d /workspace/bert ]]; then
    echo /workspace/bert
  else
    (cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
  fi
}

expect_divisible() {
  ((${!1} % ${!2} == 0)) || fail "$1=${!1}: not divisible by $2=${!2}"
}

# What follows from the values.
derive_values() {
  if [[ $BERT_CONFIG != /* && ! -f $BERT_CONFIG ]]; then
    BERT_CONFIG=$CODEDIR/$BERT_CONFIG
  fi
  if [[ $init_checkpoint == none ]]; then
    init_checkpoint=None
  fi
  if [[ $precision != fp16 && $allreduce_post_accumulation_fp16 == true ]]; then
    allreduce_post_accumulation_fp16=false
    echo "note: allreduce_post_accumulation_fp16=false, since precision=$precision" >&2
  fi
  processes=$((num_gpus > 0 ? num_gpus : 1))
  results=$CODEDIR/results
  checkpoints=$results/checkpoints
  python=$(find_python)
}

# PYTHON, the active environment's, the repository's, or the system's.
find_python() {
  if [[ -z ${PYTHON:-}${VIRTUAL_ENV:-}${CONDA_PREFIX:-} && -x $CODEDIR/.venv/bin/python ]]; then
    echo "$CODEDIR/.venv/bin/python"
  else
    echo "${PYTHON:-python3}"
  fi
}

print_values() {
  local name
  for name in "${names[@]}"; do
    printf '%-36s %s\n' "$name" "${!name}"
  done
  printf '%-36s %s, %s\n' "global batch of phase 1, phase 2" \
    $((train_batch_size * processes)) $((train_batch_size_phase2 * processes))
}

check_paths() {
  local available phase
  [[ -d $CODEDIR ]] || fail "CODEDIR=$CODEDIR: no such directory"
  [[ -f $CODEDIR/run_pretraining.py ]] || fail "CODEDIR=$CODEDIR: there is no run_pretraining.py in it"
  [[ -f $BERT_CONFIG ]] || fail "BERT_CONFIG=$BERT_CONFIG: no such file"
  [[ -f $vocab_file ]] || fail "vocab_file=$vocab_file: no such file"
  [[ $init_checkpoint == None || -f $init_checkpoint ]] || fail "init_checkpoint=$init_checkpoint: no such file"
  for phase in "${phases[@]}"; do
    is_prepared "$phase" || check_source "$phase"
  done
  available=$(count_gpus)
  ((available == 0 || num_gpus <= available)) || fail "num_gpus=$num_gpus: this machine has $available"
}

# ---- shards

# is_prepared <phase>: whether its directory holds something
is_prepared() {
  local name=DATA_DIR_PHASE$1
  [[ -d ${!name} && -n $(ls -A "${!name}") ]]
}

# check_source <phase>: there must be text to prepare its shards from
check_source() {
  local name=DATA_DIR_PHASE$1 source=$wikipedia_source what=wikipedia_source
  if [[ $text_source != None ]]; then
    source=$text_source what=text_source
  fi
  [[ -e $source ]] || fail "$name=${!name}: no shards there, and $what=$source to prepare them from does not exist;\
 give text_source=FOLDER of .txt files, or wikipedia_source=DUMP (python data/download.py --dataset wikipedia)"
}

# build_preparation <phase> <sequence length>: set command; shards appear in their directory when all is done
build_preparation() {
  local name=DATA_DIR_PHASE$1 gpus=$((num_gpus > 0 ? num_gpus : 1))
  preparing=${!name%/}.preparing
  num_blocks=$((num_shards_per_worker * num_dask_workers * gpus))
  command=("$python" "$CODEDIR/data/preprocess.py" "--sink=$preparing" "--vocab-file=$vocab_file"
    "--target-seq-length=$2" "--num-blocks=$num_blocks" "--local-n-workers=$num_dask_workers"
    "--sample-ratio=$sample_ratio" "--seed=$seed")
  if [[ $text_source != None ]]; then
    command+=("--text=$text_source")
  else
    command+=("--wikipedia=$wikipedia_source")
  fi
  if [[ $1 == 2 && $phase2_bin_size != none ]]; then
    command+=("--bin-size=$phase2_bin_size")
  fi
  if [[ $masking == static ]]; then
    command+=(--masking)
  fi
}

# prepare <phase> <sequence length>
prepare() {
  local name=DATA_DIR_PHASE$1 parts shards
  build_preparation "$1" "$2"
  echo "phase $1: preparing shards in ${!name}"
  mkdir -p "$(dirname "$preparing")" 2>/dev/null || fail "$name=${!name}: cannot make its directory"
  "${command[@]}"
  # Little text makes fewer blocks; every bin of lengths must have a sequence for each shard.
  parts=$(find "$preparing" -name 'part.*' | sed 's/_[0-9]*$//' | sort -u | wc -l)
  shards=$((parts >= num_blocks ? num_blocks : (parts + 7) / 8))
  if ((parts > 0)); then # otherwise it was balanced by a run that was killed afterwards
    "$python" "$CODEDIR/data/balance.py" "--indir=$preparing" "--num-shards=$shards" "--num-workers=$num_dask_workers"
  fi
  [[ ! -d ${!name} ]] || rmdir "${!name}"
  mv -T "$preparing" "${!name%/}"
}

# ---- phases

# build_command <phase>: set command
build_command() {
  command=("$python")
  if ((num_gpus > 0)); then
    command+=(-m torch.distributed.run --standalone "--nproc_per_node=$num_gpus")
  elif (($(count_gpus) > 0)); then
    command=(env CUDA_VISIBLE_DEVICES= "$python")
  fi
  command+=("$CODEDIR/run_pretraining.py" "--output_dir=$checkpoints" "--config_file=$BERT_CONFIG"
    "--vocab_file=$vocab_file" "--num_steps_per_checkpoint=$save_checkpoint_steps" "--seed=$seed"
    "--num_workers=$num_workers" --do_train --json-summary "$results/dllogger.json" --disable_progress_bar)
  if [[ $precision != fp32 ]]; then
    command+=("--$precision")
  fi
  if [[ $allreduce_post_accumulation == true ]]; then
    command+=(--allreduce_post_accumulation)
  fi
  if [[ $allreduce_post_accumulation_fp16 == true ]]; then
    command+=(--allreduce_post_accumulation_fp16)
  fi
  "add_phase$1_flags"
}

add_phase1_flags() {
  command+=("--input_dir=$DATA_DIR_PHASE1" --max_seq_length=128 --max_predictions_per_seq=20
    "--train_batch_size=$train_batch_size" "--gradient_accumulation_steps=$gradient_accumulation_steps"
    "--max_steps=$train_steps" "--warmup_proportion=$warmup_proportion" "--learning_rate=$learning_rate")
  if [[ $resume_training == true ]]; then
    command+=(--resume_from_checkpoint)
  fi
  if [[ $init_checkpoint != None ]]; then
    command+=("--init_checkpoint=$init_checkpoint")
  fi
}

add_phase2_flags() {
  command+=("--input_dir=$DATA_DIR_PHASE2" --max_seq_length=512 --max_predictions_per_seq=80
    "--train_batch_size=$train_batch_size_phase2" "--gradient_accumulation_steps=$gradient_accumulation_steps_phase2"
    "--max_steps=$train_steps_phase2" "--warmup_proportion=$warmup_proportion_phase2"
    "--learning_rate=$learning_rate_phase2" --phase2 --resume_from_checkpoint "--phase1_end_step=$train_steps")
}

# The N of the newest ckpt_N.pt; 0 where there is none.
newest_checkpoint() {
  local file newest=0
  for file in "$checkpoints"/ckpt_*.pt; do
    if [[ $file =~ /ckpt_([0-9]+)\.pt$ ]] && ((10#${BASH_REMATCH[1]} > newest)); then
      newest=$((10#${BASH_REMATCH[1]}))
    fi
  done
  echo "$newest"
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

# run_logged <file> <command>: SIGTERM and Ctrl-C ask the command to stop, which lets it save a checkpoint
run_logged() {
  local log=$1 tee child status stopped=false
  shift
  exec 3> >(tee -i -a "$log")
  tee=$!
  "$@" >&3 2>&1 3>&- &
  child=$!
  exec 3>&-
  trap 'stopped=true; kill -TERM "$child" 2>/dev/null || true' TERM INT
  while :; do
    status=0
    wait "$child" || status=$?
    kill -0 "$child" 2>/dev/null || break # otherwise a signal ended the wait, not the command
  done
  trap - TERM INT
  wait "$tee" 2>/dev/null || true
  if [[ $stopped == true ]]; then
    echo "stopped by a signal" >&2
    exit 143
  elif ((status != 0)); then
    echo "error: the command ended with exit code $status" >&2
    exit "$status"
  fi
}

# print_command <phase>: print command
print_command() {
  printf '\n# phase %s\n' "$1"
  printf '%q ' "${command[@]}"
  echo
}

main() {
  mapfile -t names < <(CODEDIR="" parameters | cut -d ' ' -f 1)
  read_arguments "$@"
  complete_values
  derive_values
  print_values
  local phase phases=(1 2) batches=("" "$train_batch_size" "$train_batch_size_phase2") lengths=("" 128 512)
  if phase1_is_done; then
    echo "phase 1 is done: ckpt_$(newest_checkpoint).pt"
    phases=(2)
  fi
  if [[ $dry_run == true ]]; then
    for phase in "${phases[@]}"; do
      if ! is_prepared "$phase"; then
        build_preparation "$phase" "${lengths[phase]}"
        print_command "$phase, its shards"
      fi
      build_command "$phase"
      print_command "$phase"
    done
  fi
  check_paths
  if [[ $dry_run == false ]]; then
    mkdir -p "$checkpoints" 2>/dev/null || fail "CODEDIR=$CODEDIR: cannot make results/checkpoints in it"
    for phase in "${phases[@]}"; do
      is_prepared "$phase" || prepare "$phase" "${lengths[phase]}"
      run_phase "$phase" "${batches[phase]}"
    done
  fi
}

main "$@"
