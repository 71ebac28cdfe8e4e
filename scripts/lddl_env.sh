#!/usr/bin/env bash
# Make a virtual environment that holds lddl 0.1.0: the oracle of tests/interop and the peer of bert.benchmark.loader.
#
#   scripts/lddl_env.sh DIR [PYTHON]
#   LDDL_PYTHON=DIR/bin/python python -m pytest tests/interop/test_lddl.py
#
# lddl declares pins that no longer install (dask 2021, pyarrow 4), so it goes in without its dependencies; its loader
# and the pure functions of its preprocessing run with current libraries.
set -euo pipefail

dir=${1:?usage: scripts/lddl_env.sh DIR [PYTHON]}
python=${2:-python3}

"$python" -m venv "$dir"
pip=("$dir/bin/python" -m pip install --quiet)
"${pip[@]}" --no-deps lddl==0.1.0
"${pip[@]}" torch==2.13.0 --extra-index-url https://download.pytorch.org/whl/cpu
"${pip[@]}" numpy pyarrow requests nltk transformers
"$dir/bin/python" -c 'import lddl.torch; print("lddl.torch is ready")'
