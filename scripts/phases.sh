#!/usr/bin/env bash
# What run_pretraining.sh and run.sub share: the shards of a phase, and the flags of its command.
#
# It is sourced after launch.sh by a script that has the values of run_pretraining.sh as variables of the same names
# (those of the second phase end in _phase2), and besides
#
#   checkpoints   directory of the checkpoints of both phases
#   num_blocks    blocks to cut the text into, and so shards
#   preparer      words before a command that prepares shards, such as those of srun

# shellcheck disable=SC2034,SC2154  # variables that the sourcing scripts read, or assign

lengths=("" 128 512)
predictions=("" 20 80)
preparer=()

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

check_vocabulary() {
  [[ -f $vocab_file ]] || fail "vocab_file=$vocab_file: no such file; give vocab_file=FILE, fetch the published one\
 (python data/download.py --dataset weights), or train one (python data/train_vocab.py)"
}

# build_preparation <phase>: set command; shards appear in their directory when all is done
build_preparation() {
  local name=DATA_DIR_PHASE$1
  preparing=${!name%/}.preparing
  command=("${preparer[@]}" "$python" "$CODEDIR/data/preprocess.py" "--sink=$preparing" "--vocab-file=$vocab_file"
    "--target-seq-length=${lengths[$1]}" "--num-blocks=$num_blocks" "--local-n-workers=$num_dask_workers"
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

# prepare <phase> [function that runs a command]
prepare() {
  local name=DATA_DIR_PHASE$1 run=${2:-} parts shards
  build_preparation "$1"
  echo "phase $1: preparing shards in ${!name}"
  mkdir -p "$(dirname "$preparing")" 2>/dev/null || fail "$name=${!name}: cannot make its directory"
  $run "${command[@]}"
  # Little text makes fewer blocks; every bin of lengths must have a sequence for each shard.
  parts=$(find "$preparing" -name 'part.*' | sed 's/_[0-9]*$//' | sort -u | wc -l)
  shards=$((parts >= num_blocks ? num_blocks : (parts + 7) / 8))
  if ((parts > 0)); then # otherwise it was balanced by a run that was killed afterwards
    $run "${preparer[@]}" "$python" "$CODEDIR/data/balance.py" "--indir=$preparing" "--num-shards=$shards" \
      "--num-workers=$num_dask_workers"
  fi
  [[ ! -d ${!name} ]] || rmdir "${!name}"
  mv -T "$preparing" "${!name%/}"
}

# ---- training

# add_training_flags <phase>: to command
add_training_flags() {
  local suffix data=DATA_DIR_PHASE$1
  suffix=$(phase_suffix "$1")
  local batch=train_batch_size$suffix accumulation=gradient_accumulation_steps$suffix steps=train_steps$suffix
  local warmup=warmup_proportion$suffix rate=learning_rate$suffix
  command+=("--output_dir=$checkpoints" "--config_file=$BERT_CONFIG" "--vocab_file=$vocab_file"
    "--input_dir=${!data}" "--max_seq_length=${lengths[$1]}" "--max_predictions_per_seq=${predictions[$1]}"
    "--train_batch_size=${!batch}" "--gradient_accumulation_steps=${!accumulation}" "--max_steps=${!steps}"
    "--warmup_proportion=${!warmup}" "--learning_rate=${!rate}" "--num_steps_per_checkpoint=$save_checkpoint_steps"
    "--seed=$seed" "--num_workers=$num_workers" --do_train --disable_progress_bar)
  add_precision
  add_if "$allreduce_post_accumulation" allreduce_post_accumulation
  add_if "$allreduce_post_accumulation_fp16" allreduce_post_accumulation_fp16
}

# fp16 gradients are reduced as such, with fp16 alone.
match_allreduce_to_precision() {
  if [[ $precision != fp16 && $allreduce_post_accumulation_fp16 == true ]]; then
    allreduce_post_accumulation_fp16=false
    echo "note: allreduce_post_accumulation_fp16=false, since precision=$precision" >&2
  fi
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

# phase_suffix <phase>: what the names of its values end in
phase_suffix() {
  [[ $1 == 1 ]] || echo _phase2
}
