#!/usr/bin/env bash
# What scripts/run_*.sh share: values from the command line, their checks, the Python command and its log.
#
# It is sourced by a script that has a function `parameters`, which prints `name kind default` of each value in order of
# position, and a variable `positions`, how many of them have a position; the rest can be given by name only:
#
#   read_arguments "$@"               # dry_run and the values that were given, as variables
#   complete_values                   # defaults for the rest, every kind checked; CODEDIR and python
#   start_command 8 run_squad.py      # command: the interpreter or torchrun, and the script
#   run_logged log.txt "${command[@]}"

# shellcheck disable=SC2034,SC2154  # variables that only the sourcing scripts read, or assign

# ---- values

# read_arguments <words>: set names, dry_run and the variables that were given
read_arguments() {
  local word position=0 listed
  local -a positional named=()
  mapfile -t names < <(CODEDIR="" parameters | cut -d ' ' -f 1)
  positional=("${names[@]:0:positions}")
  listed=" ${names[*]} "
  unset "${names[@]}" # the environment may have a variable of such a name
  dry_run=false
  for word in "$@"; do
    if [[ $word == --dry-run || $word == --dry_run ]]; then
      dry_run=true
    elif [[ $word == --help || $word == -h ]]; then
      sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
      exit 0
    elif [[ $word =~ ^([A-Za-z_][A-Za-z0-9_]*)= ]]; then
      [[ $listed == *" ${BASH_REMATCH[1]} "* ]] || fail "$word: unknown name, expected one of:$listed"
      named+=("$word")
    elif [[ $word == -* && ! $word =~ ^-[0-9] ]]; then
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
  CODEDIR=${CODEDIR:-$(default_codedir)}
  while read -r name kind value; do
    declare -g "$name=${!name:-$value}"
    if [[ $kind == path && ${!name} == none ]]; then
      declare -g "$name=None"
    fi
    check_kind "$name" "$kind"
  done < <(parameters)
  python=$(find_python)
}

# check_kind <name> <kind>
check_kind() {
  case $2 in
    count) expect "$1" '^[1-9][0-9]*$' "a whole number from 1" ;;
    count_or_none) expect "$1" '^(none|[1-9][0-9]*)$' "a whole number from 1, or none" ;;
    count0) expect "$1" '^(0|[1-9][0-9]*)$' "a whole number from 0" ;;
    steps) expect "$1" '^(-1|[1-9][0-9]*)(\.0*)?$' "a whole number from 1, or -1 to go by the epochs" ;;
    number) expect "$1" '^([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?$' "a number such as 6e-3" ;;
    fraction) expect "$1" '^(0?\.[0-9]+|0\.?|1(\.0*)?)$' "a number from 0 to 1" ;;
    switch) expect "$1" '^(true|false)$' "true or false" ;;
    precision) expect "$1" '^(fp16|fp32|tf32|bf16)$' "fp16, fp32, tf32 or bf16" ;;
    bin_size) expect "$1" '^(none|32|64|128|256|512)$' "none, 32, 64, 128, 256 or 512" ;;
    phases) expect "$1" '^(1|2|both)$' "1, 2 or both" ;;
    numa) expect "$1" '^(none|node|socket|exclusive|core-complex)$' "none, node, socket, exclusive or core-complex" ;;
    masking) expect "$1" '^(static|dynamic)$' "static or dynamic" ;;
    modes) expect "$1" '^((train|eval|prediction|predict)[ ,+_-]*)+$' 'train, eval, prediction or some of them' ;;
    file_name) expect "$1" '^[^/]+$' "a file name without /" ;;
  esac
}

# expect <name> <regular expression> <in words>
expect() {
  [[ ${!1} =~ $2 ]] || fail "$1=${!1}: expected $3"
}

expect_divisible() {
  ((${!1} % ${!2} == 0)) || fail "$1=${!1}: not divisible by $2=${!2}"
}

expect_file() {
  [[ -f ${!1} ]] || fail "$1=${!1}: no such file"
}

# expect_checkpoint_or_none <name>: a file, a folder, or the prefix of TensorFlow's files; None leaves it out
expect_checkpoint_or_none() {
  [[ ${!1} == None || -e ${!1} || -f ${!1}.index ]] || fail "$1=${!1}: no such file"
}

# expect_file_or_none <name>: None leaves a file out
expect_file_or_none() {
  [[ ${!1} == None ]] || expect_file "$1"
}

fail() {
  echo "error: $1" >&2
  exit 2
}

print_values() {
  local name
  for name in "${names[@]}"; do
    printf '%-36s %s\n' "$name" "${!name}"
  done
}

# ---- the machine

count_gpus() {
  if command -v nvidia-smi >/dev/null; then
    nvidia-smi -L 2>/dev/null | grep -c '^GPU' || true
  else
    echo 0
  fi
}

default_codedir() {
  if [[ -d /workspace/bert ]]; then
    echo /workspace/bert
  else
    (cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
  fi
}

# find_in_codedir <name>: a relative path that does not exist here is one in CODEDIR
find_in_codedir() {
  if [[ ${!1} != /* && ${!1} != None && ! -f ${!1} ]]; then
    declare -g "$1=$CODEDIR/${!1}"
  fi
}

# PYTHON, the active environment's, the repository's, or the system's.
find_python() {
  if [[ -z ${PYTHON:-}${VIRTUAL_ENV:-}${CONDA_PREFIX:-} && -x $CODEDIR/.venv/bin/python ]]; then
    echo "$CODEDIR/.venv/bin/python"
  else
    echo "${PYTHON:-python3}"
  fi
}

# check_machine <script> <name of the number of GPUs>
check_machine() {
  local available
  [[ -d $CODEDIR ]] || fail "CODEDIR=$CODEDIR: no such directory"
  [[ -f $CODEDIR/$1 ]] || fail "CODEDIR=$CODEDIR: it has no $1"
  available=$(count_gpus)
  ((available == 0 || ${!2} <= available)) || fail "$2=${!2}: this machine has $available"
}

# ---- the command

# start_command <number of GPUs> <script>: set command, which runs on the CPU where there is no GPU to use
start_command() {
  command=("$python")
  if (($1 > 0)); then
    command+=(-m torch.distributed.run --standalone "--nproc_per_node=$1")
    if [[ ${numa_binding:-none} != none ]]; then
      command+=("--numa-binding=$numa_binding")
    fi
  elif (($(count_gpus) > 0)); then
    command=(env CUDA_VISIBLE_DEVICES= "$python")
  fi
  command+=("$CODEDIR/$2")
}

# add_given <flag> <value>: None leaves the flag out
add_given() {
  if [[ $2 != None ]]; then
    command+=("--$1=$2")
  fi
}

# add_if <switch> <flag>
add_if() {
  if [[ $1 == true ]]; then
    command+=("--$2")
  fi
}

add_precision() {
  if [[ $precision != fp32 ]]; then
    command+=("--$precision")
  fi
}

# print_command <title> <command>
print_command() {
  printf '\n# %s\n' "$1"
  printf '%q ' "${@:2}"
  echo
}

# wait_for <process id>: set status; a signal that is trapped does not end the wait
wait_for() {
  while :; do
    status=0
    wait "$1" || status=$?
    kill -0 "$1" 2>/dev/null || break # otherwise the signal ended the wait, not the command
  done
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
  wait_for "$child"
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

# ---- fine-tuning

# The published 8 GPUs, or as many as there are.
count_up_to_8_gpus() {
  local found
  found=$(count_gpus)
  echo $((found < 8 ? found : 8))
}

# wants <train|eval|predict>: whether mode has it
wants() {
  [[ $mode == *$1* ]]
}

# run_or_show <name of the output directory> <log file in it>: after check_paths, in a dry run before it
run_or_show() {
  if [[ $dry_run == true ]]; then
    print_command "command" "${command[@]}"
  fi
  check_paths
  if [[ $dry_run == false ]]; then
    mkdir -p "${!1}" 2>/dev/null || fail "$1=${!1}: cannot make this directory"
    echo "logs written to ${!1%/}/$2"
    run_logged "${!1%/}/$2" "${command[@]}"
  fi
}
