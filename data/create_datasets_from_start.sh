#!/usr/bin/env bash
# Fetch and prepare everything for pre-training and fine-tuning: SQuAD, GLUE, Google's weights and their vocabulary,
# Wikipedia, and its shards for both phases, in the folders where scripts/run_pretraining.sh expects them.
#
#   bash data/create_datasets_from_start.sh [option ...]
#
#   --language CODE       which Wikipedia (default: en)
#   --text DIR            your own folder of .txt files, with blank lines between documents, instead of Wikipedia
#   --skip-wikipedia      no Wikipedia, and no shards from it
#   --num-shards N        shards of phase 1, and of every sequence-length bin of phase 2 (default: 256)
#   --mirror URL          where to look for every file first; see data/download.py --help
#   --dry-run             print the commands and run nothing
#
# Everything goes below BERT_PREP_WORKING_DIR (default: data); the dump of the English Wikipedia alone exceeds 20 GB.
# The weights and the vocabulary are those of uncased BERT-Large for English, else those of the Chinese or the
# multilingual model; set VOCAB_FILE and LOWER_CASE (true or false) for others. A step that fails does not stop the
# rest: it is listed at the end, and the exit code is 1. Run the same command again to resume.
set -euo pipefail
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/setup.sh"

language=en text="" wikipedia=true num_shards=256 dry_run=false
mirrors=() # --mirror and its values, for data/download.py
missing=() # the steps that failed

read_arguments() {
  while (($#)); do
    case $1 in
      --language | --text | --num-shards | --mirror)
        [[ $# -gt 1 && $2 != --* ]] || fail "$1: expected a value after it"
        case $1 in
          --language) language=$2 ;;
          --text) text=$2 ;;
          --num-shards) num_shards=$2 ;;
          --mirror) mirrors=("${mirrors[@]:---mirror}" "$2") ;;
        esac
        shift
        ;;
      --skip-wikipedia) wikipedia=false ;;
      --dry-run) dry_run=true ;;
      -h | --help)
        sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
        exit 0
        ;;
      *) fail "$1: unknown option, --help lists them" ;;
    esac
    shift
  done
  [[ $language =~ ^[a-z][a-z0-9-]*$ ]] || fail "--language $language: expected the code of a Wikipedia, such as en"
  [[ $num_shards =~ ^[1-9][0-9]*$ ]] || fail "--num-shards $num_shards: expected a whole number from 1"
  [[ -z $text || -e $text ]] || fail "--text $text: no such file or directory"
  [[ -z ${VOCAB_FILE:-} || -f $VOCAB_FILE ]] || fail "VOCAB_FILE=$VOCAB_FILE: no such file"
}

# Set data, weights, vocab and lower_case.
choose_places() {
  data=$(absolute "${BERT_PREP_WORKING_DIR:-$ROOT/data}")
  [[ -z $text ]] || text=$(absolute "$text")
  lower_case=true
  case $language in
    en | simple) weights=uncased_L-24_H-1024_A-16 ;;
    zh) weights=chinese_L-12_H-768_A-12 ;;
    *) weights=multi_cased_L-12_H-768_A-12 lower_case=false ;;
  esac
  vocab=$(absolute "${VOCAB_FILE:-$data/download/google_pretrained_weights/$weights/vocab.txt}")
  lower_case=${LOWER_CASE:-$lower_case}
}

absolute() {
  if [[ $1 == /* ]]; then echo "$1"; else echo "$PWD/$1"; fi
}

# attempt <what> <command>: run the command, or print it; record a failure
attempt() {
  local what=$1 status=0
  shift
  if [[ $dry_run == true ]]; then
    printf '%q ' "$@"
    echo
    return
  fi
  printf '\n== %s\n' "$what"
  "$@" || status=$?
  ((status != 130 && status != 143)) || exit "$status" # Ctrl-C and SIGTERM end the script
  ((status == 0)) || missing+=("$what")
  return "$status"
}

fetch() {
  attempt "$1" python data/download.py --dataset "$1" --output "$data" "${mirrors[@]}" || true
}

# make_shards <phase> <tokens> <folder> [flag of data/preprocess.py ...]
make_shards() {
  local what="shards of phase $1" folder=$3 balanced
  balanced=$(compgen -G "$folder/shard-*" || true)
  if [[ -z $balanced ]]; then
    attempt "$what" python data/preprocess.py "${source[@]}" --language "$language" --sink "$folder" \
      --vocab-file "$vocab" --lower-case "$lower_case" --target-seq-length "$2" --masking "${@:4}" || return 0
  elif [[ ! -e $folder/.balance ]]; then # otherwise it was interrupted
    echo "$folder: the $what are already there"
    return
  fi
  attempt "$what, balanced" python data/balance.py --indir "$folder" --num-shards "$num_shards" || true
}

main() {
  read_arguments "$@"
  choose_places
  [[ $dry_run == true ]] || setup_environment prepare
  cd "$ROOT"

  [[ $weights != uncased* ]] || fetch vocab # in case the weights cannot be fetched
  fetch squad
  fetch glue
  fetch "$weights"

  source=()
  if [[ -n $text ]]; then
    source=(--text "$text")
  elif [[ $wikipedia == true ]] && attempt Wikipedia python -m bert.download.wikipedia --outdir "$data/wikipedia" \
    --language "$language" "${mirrors[@]}"; then
    source=(--wikipedia "$data/wikipedia/source/$language")
  fi

  if ((${#source[@]})) && [[ $dry_run == true || -f $vocab ]]; then
    make_shards 1 128 "$data/pretrain/phase1/unbinned/parquet"
    make_shards 2 512 "$data/pretrain/phase2/bin_size_64/parquet" --bin-size 64
  elif [[ -n $text || $wikipedia == true ]]; then
    missing+=("shards of both phases: there is no $([[ -f $vocab ]] && echo text || echo "$vocab")")
  fi
  report
}

report() {
  if ((${#missing[@]})); then
    printf '\nmissing, for the reasons above:\n' >&2
    printf '  %s\n' "${missing[@]}" >&2
    exit 1
  fi
  [[ $dry_run == true ]] || printf '\neverything is in %s\n' "$data"
}

main "$@"
