#!/usr/bin/env bash
# From nothing to a model that answers questions, in minutes: data, phase 1, phase 2, fine-tuning, report.
#
#   bash scripts/quickstart.sh                     on a small encyclopedia of invented places that it writes itself
#   bash scripts/quickstart.sh --text DIR          on your own folder of .txt files, without the questions
#   bash scripts/quickstart.sh --output DIR        somewhere else than results/quickstart
#
# A CPU with two cores is enough. A second run on the same output continues where the first one stopped.
set -euo pipefail
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

PHASE1_STEPS=${PHASE1_STEPS:-2400} PHASE2_STEPS=${PHASE2_STEPS:-300} # few in a test of the installation
text="" output=$ROOT/results/quickstart
while (($#)); do
  case $1 in
    --text | --output)
      (($# > 1)) || fail "$1: expected a directory after it"
      if [[ $1 == --text ]]; then text=$2; else output=$2; fi
      shift 2
      ;;
    -h | --help)
      sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    *) fail "$1: unknown, expected --text DIR or --output DIR" ;;
  esac
done
[[ -z $text || -e $text ]] || fail "--text $text: no such file or directory"
[[ -z $text ]] || text=$(realpath "$text")
mkdir -p "$output"
output=$(realpath "$output")

setup_environment finetune report
cd "$ROOT"

step() { printf '\n== %s\n' "$1"; }

# shards <tokens> <predictions>: train/ and eval/ shards of one phase; finished ones are kept
shards() {
  local part copies
  for part in train eval; do
    copies=$([[ $part == train ]] && echo 5 || echo 1)
    [[ -f $output/shards_$1/$part/$part.parquet ]] || python create_pretraining_data.py \
      --input_file "$output/text/$part" --output_file "$output/shards_$1/$part/$part.parquet" \
      --vocab_file "$output/vocab.txt" --max_seq_length "$1" --max_predictions_per_seq "$2" --dupe_factor "$copies"
  done
}

# phase <1|2> <tokens> <predictions> <steps> <batch> <learning rate> [flag ...]
phase() {
  python run_pretraining.py --do_train --resume_from_checkpoint --optimizer lamb \
    --config_file "$output/bert_config.json" --vocab_file "$output/vocab.txt" --output_dir "$output/checkpoints" \
    --input_dir "$output/shards_$2/train" --eval_dir "$output/shards_$2/eval" --eval_steps 200 --log_freq 50 \
    --max_seq_length "$2" --max_predictions_per_seq "$3" --max_steps "$4" --train_batch_size "$5" \
    --learning_rate "$6" --warmup_proportion 0.1 --num_steps_per_checkpoint 500 --num_workers 1 \
    --json_summary "$output/dllogger.json" --tensorboard_dir "$output/tensorboard/phase$1" "${@:7}"
}

# finetune <name> [flag ...]: on the questions about the encyclopedia; a finished run is kept
finetune() {
  [[ -f $output/$1/eval_results.txt ]] || python run_squad.py --output_dir "$output/$1" --do_train --do_predict --do_eval \
    --train_file "$questions/train-v1.1.json" --predict_file "$questions/dev-v1.1.json" --resume_from_checkpoint \
    --max_seq_length 160 --doc_stride 64 --max_query_length 32 --train_batch_size 32 --num_train_epochs 5 \
    --learning_rate 2e-3 --json_summary "$output/$1/dllogger.json" "${@:2}"
}

step "Text"
if [[ -d $output/text/train ]]; then
  echo "$output/text exists: keeping it"
elif [[ -n $text ]]; then
  python data/split_text.py --text "$text" --output "$output/text"
else
  python data/make_gazetteer.py --output "$output/text" --tasks
fi

step "Vocabulary"
[[ -f $output/vocab.txt ]] || python data/train_vocab.py --text "$output/text/train" --vocab_size 4000 \
  --output "$output/vocab.txt"
pieces=$(wc -l <"$output/vocab.txt")
sed "s/\"vocab_size\": [0-9]*/\"vocab_size\": $pieces/" bert_configs/quickstart.json >"$output/bert_config.json"

step "Shards of 128 and of 512 tokens"
shards 128 20
shards 512 80

step "Phase 1: sequences of up to 128 tokens"
if [[ -f $output/checkpoints/ckpt_$PHASE1_STEPS.pt ]]; then
  echo "$output/checkpoints/ckpt_$PHASE1_STEPS.pt exists: keeping it"
else
  phase 1 128 20 "$PHASE1_STEPS" 32 1.5e-2
fi

step "Phase 2: sequences of up to 512 tokens"
phase 2 512 80 "$PHASE2_STEPS" 16 5e-3 --phase2

finetuned=() questions=$output/text/squad/v1.1
if [[ -d $questions ]]; then
  step "Fine-tuning: questions, from the end of phase 1"
  finetune squad_pretrained --init_checkpoint "$output/checkpoints/ckpt_$PHASE1_STEPS.pt"
  step "The same from random weights"
  finetune squad_random --config_file "$output/bert_config.json" --vocab_file "$output/vocab.txt"
  step "One question"
  mapfile -t asked < <(python -c 'import json, sys
paragraph = json.load(open(sys.argv[1], encoding="utf8"))["data"][0]["paragraphs"][0]
question = paragraph["qas"][0]
print(paragraph["context"], question["question"], question["answers"][0]["text"], sep="\n")' "$questions/dev-v1.1.json")
  python inference.py --init_checkpoint "$output/squad_pretrained/pytorch_model.bin" --max_seq_length 160 \
    --context "${asked[0]}" --question "${asked[1]}"
  echo "expected: ${asked[2]}"
  finetuned=(--finetuned "$output"/squad_{pretrained,random}/dllogger.json)
fi

step "Report"
python -m bert.report --logs "$output/dllogger.json" "${finetuned[@]}" --output "$output/report.png"
cat <<EOF

checkpoints   $output/checkpoints
log           $output/dllogger.json
TensorBoard   tensorboard --logdir $output/tensorboard
report        $output/report.png
EOF
