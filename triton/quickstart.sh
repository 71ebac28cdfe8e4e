#!/usr/bin/env bash
# From nothing to a page that answers questions: model, export, server, one question.
#
#   bash triton/quickstart.sh                      the model of scripts/quickstart.sh, which is trained if it is missing
#   bash triton/quickstart.sh --checkpoint FILE    a model that run_squad.py fine-tuned
#   bash triton/quickstart.sh --port 8081          other ports: --http-port, --grpc-port, --metrics-port
#   bash triton/quickstart.sh --once               end after the question
#
# It serves until Ctrl-C. The model repository is results/serving/model_repository.
set -euo pipefail
# shellcheck source=triton/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

checkpoint="" once="" port=8080 quickstart=$ROOT/results/quickstart repository=$ROOT/results/serving/model_repository
ports=() lengths=()
while (($#)); do
  case $1 in
    -h | --help)
      sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    --once) once=1 ;;
    --checkpoint | --port | --http-port | --grpc-port | --metrics-port)
      (($# > 1)) || fail "$1: expected a value after it"
      case $1 in
        --checkpoint) checkpoint=$2 ;;
        --port) port=$2 ;;
        *) ports+=("$1" "$2") ;;
      esac
      shift
      ;;
    *) fail "$1: unknown, expected --checkpoint FILE, --port N or --once" ;;
  esac
  shift
done
[[ -z $checkpoint || -e $checkpoint ]] || fail "--checkpoint $checkpoint: no such file"

step() { printf '\n== %s\n' "$1"; }

if [[ -z $checkpoint ]]; then
  step "Model"
  checkpoint=$quickstart/squad_pretrained/pytorch_model.bin lengths=(--max_seq_length 160 --doc_stride 64 --max_query_length 32)
  if [[ -f $checkpoint ]]; then
    echo "$checkpoint exists: taking it"
  else
    echo "training one with scripts/quickstart.sh, about 15 minutes on two cores"
    env -u VIRTUAL_ENV VENV="$ROOT/.venv" bash "$ROOT/scripts/quickstart.sh"
  fi
fi

step "Serving environment"
setup_serving
cd "$ROOT"

step "Export"
python triton/export.py --checkpoint "$checkpoint" --task qa "${lengths[@]}" --output "$repository"
pretrained=$(find "$quickstart/checkpoints" -name 'ckpt_*.pt' 2>/dev/null | sort -V | tail -n 1 || true)
[[ -z $pretrained ]] || python triton/export.py --checkpoint "$pretrained" --task embed --output "$repository"

step "Server"
rights=()
((EUID)) || rights=(--allow_root) # this user made all the files, which no other may be able to read
log=$(mktemp)
python triton/serve.py --model-repository "$repository" --port "$port" "${ports[@]}" "${rights[@]}" > >(tee "$log") &
server=$!
trap 'kill "$server" 2>/dev/null || true; wait "$server" || true; rm -f "$log"' EXIT
until grep -q '^ready: ' "$log"; do
  kill -0 "$server" 2>/dev/null || fail "the server ended"
  sleep 0.2
done

step "One question"
python triton/client.py --url "http://127.0.0.1:$port" \
  --question "What was the ferry called?" \
  --context "Amber Lake lies in the hills north of Torvik. Since the road along its shore is closed in winter, the village bought a ferry in 1931. The ferry was called the Grey Heron and took forty passengers from one end of the lake to the other."

if [[ -z $once ]]; then
  step "Page"
  echo "open http://127.0.0.1:$port in a browser; Ctrl-C ends the server"
  wait "$server"
fi
