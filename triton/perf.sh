#!/usr/bin/env bash
# Measure a running server: the engine with one client and with many, the text model under even and random arrivals.
#
#   PREDICT_FILE=dev-v1.1.json VOCAB_FILE=vocab.txt bash triton/perf.sh
#
# Values, from the environment:
#   SERVER_URL grpc://127.0.0.1:8001    MAX_SEQ_LENGTH 384    DOC_STRIDE 128     MAX_QUERY_LENGTH 64
#   BATCH_SIZES "1 2 4 8"               CONCURRENCY_STEPS 8   RATES "5 10 20 40" RESULTS results/serving
# RESULTS gets a CSV for each sweep and performance.png. Start triton/serve.sh with the same BERT_SERVE_ADMIN_KEY, and
# with --cache_mb 0, so that no answer comes from its cache.
set -euo pipefail

# shellcheck source=triton/install_perf_analyzer.sh
source "$(dirname "${BASH_SOURCE[0]}")/install_perf_analyzer.sh"
PREDICT_FILE=${PREDICT_FILE:?a SQuAD file} VOCAB_FILE=${VOCAB_FILE:?the vocabulary of the model}
SERVER_URL=${SERVER_URL:-grpc://127.0.0.1:8001}
RESULTS=${RESULTS:-results/serving}
read -ra BATCH_SIZES <<<"${BATCH_SIZES:-1 2 4 8}"
read -ra RATES <<<"${RATES:-5 10 20 40}"

# sweep <name> <model> <data> [flag ...]: one CSV
sweep() {
  echo "$1"
  "$VENV/bin/python" "$ROOT/triton/run_performance_on_triton.py" --server-url "$SERVER_URL" --model-name "$2" \
    --input-data "$3" --evaluation-mode online --performance-tool perf_analyzer --result-path "$RESULTS/$1.csv" "${@:4}"
}

# prepare <form>: data.json in a folder of that name
prepare() {
  local flags=(--form "$1" --input-data-dir "$RESULTS/$1" --predict-file "$PREDICT_FILE")
  [[ $1 == text ]] || flags+=(--dataloader "$ROOT/triton/dataloader.py" --vocab-file "$VOCAB_FILE"
    --max-seq-length "$length" --doc-stride "${DOC_STRIDE:-128}" --max-query-length "${MAX_QUERY_LENGTH:-64}")
  "$VENV/bin/python" "$ROOT/triton/prepare_input_data.py" "${flags[@]}"
}

setup_serving report
install_perf_analyzer
length=${MAX_SEQ_LENGTH:-384}
for form in padded ragged text; do prepare "$form"; done
shapes=()
for number in 0 1 2; do shapes+=(--input-shapes "input__$number:$length"); done
dynamic=(--batch-sizes 8 --batching-mode dynamic --concurrency-steps "${CONCURRENCY_STEPS:-8}")

sweep static bert "$RESULTS/padded/data.json" "${shapes[@]}" --batch-sizes "${BATCH_SIZES[@]}"
sweep random bert random "${shapes[@]}" "${dynamic[@]}"
sweep dynamic bert "$RESULTS/ragged/data.json" "${dynamic[@]}"
for distribution in constant poisson; do
  sweep "$distribution" bert_qa "$RESULTS/text/data.json" --batch-sizes 1 \
    --request-rates "${RATES[@]}" --request-distribution "$distribution"
done
"$VENV/bin/python" "$ROOT/triton/plot_performance.py" --output "$RESULTS/performance.png" \
  --results "$RESULTS"/{static,random,dynamic,constant,poisson}.csv
echo "$RESULTS/performance.png"
