#!/usr/bin/env bash
# Serve a small model on the real Triton as a newcomer would, and ask it in every way: page, curl, gRPC, NVIDIA's commands.
#
#   bash tests/serve/check_serving.sh [CHECKPOINT SQUAD_FILE [lengths ...]]
#
# Without a checkpoint it trains one for a few steps on a small encyclopedia. Every served answer must be the checkpoint's.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

port=18680 grpc=127.0.0.1:18682
work=$(mktemp -d)
server=""
trap 'if [[ -n $server ]]; then kill "$server" 2>/dev/null || true; wait "$server" || true; fi; rm -rf "$work"' EXIT

checkpoint=${1:-results/quickstart/squad_pretrained/pytorch_model.bin}
questions=${2:-results/quickstart/text/squad/v1.1/dev-v1.1.json}
lengths=(--max_seq_length 160 --doc_stride 64 --max_query_length 32)
arguments=()
if (($#)); then
  lengths=("${@:3}") arguments=(--checkpoint "$checkpoint")
elif [[ ! -f $checkpoint ]]; then
  export PHASE1_STEPS=40 PHASE2_STEPS=3
  [[ -d results/quickstart/text ]] || bash scripts/setup.sh finetune report
  [[ -d results/quickstart/text ]] || .venv/bin/python data/make_gazetteer.py --articles 300 --tasks --output results/quickstart/text
fi

bash triton/quickstart.sh "${arguments[@]}" --port $port --http-port 18681 --grpc-port 18682 --metrics-port 18683 >"$work/log" 2>&1 &
server=$!
until grep -q '^open http' "$work/log"; do
  kill -0 $server 2>/dev/null || {
    tail -n 40 "$work/log" >&2
    exit 1
  }
  sleep 1
done
sed -n '/^== Export/,$p' "$work/log"

python=.venv/serving/bin/python
question="What was the ferry called?" context="The ferry was called the Grey Heron."
answer() { "$python" -c 'import json, sys; print(json.load(sys.stdin)["answer"])'; }
same() {
  echo "$1: $2"
  [[ $2 == "$expected" ]] || {
    echo "error: expected $expected" >&2
    exit 1
  }
}
expected=$("$python" inference.py --init_checkpoint "$checkpoint" "${lengths[@]}" --question "$question" --context "$context" --json | answer)
body=$("$python" -c 'import json, sys; print(json.dumps(dict(question=sys.argv[1], context=sys.argv[2])))' "$question" "$context")
same curl "$(curl -fsS -H 'Content-Type: application/json' -d "$body" http://127.0.0.1:$port/v1/answer | answer)"
same client "$("$python" triton/client.py --url http://127.0.0.1:$port --question "$question" --context "$context" --json | answer)"
same gRPC "$("$python" triton/client.py --grpc $grpc --question "$question" --context "$context" --json | answer)"
if command -v chromium >/dev/null; then
  same page "$("$python" tests/serve/check_page.py http://127.0.0.1:$port "$question" "$context" "${SCREENSHOT:-$work/page.png}")"
fi
curl -fsS http://127.0.0.1:$port/healthz && echo
refused=$(curl -sS -X POST http://127.0.0.1:18681/v2/repository/index)
[[ $refused == *restricted* ]] || { echo "error: Triton's administration answered: $refused" >&2; exit 1; }

"$python" triton/metrics.py --url http://127.0.0.1:$port --predict_file "$questions" --checkpoint "$checkpoint" "${lengths[@]}" \
  --expect_equal
"$python" -c 'import json, sys
from pathlib import Path
versions = Path("results/serving/model_repository/bert_qa").glob("*/settings.json")
settings = json.loads(max(versions, key=lambda path: int(path.parent.name)).read_text(encoding="utf8"))
open(sys.argv[1], "w", encoding="utf8").write("\n".join(settings["tokenizer"]["vocab"]) + "\n")' "$work/vocab.txt"
data=(--predict-file "$questions" --vocab-file "$work/vocab.txt" "${lengths[@]//_/-}")
"$python" triton/run_inference_on_triton.py --server-url $grpc --model-name bert --model-version "" --output-dir "$work/dumps" \
  --dump-labels --dataloader triton/dataloader.py "${data[@]}"
"$python" triton/calculate_metrics.py --metrics triton/metrics.py --dump-dir "$work/dumps" --csv "$work/metrics.csv" \
  --output-dir "$work" "${data[@]}"
cat "$work/metrics.csv"
