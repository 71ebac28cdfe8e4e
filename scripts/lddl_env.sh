#!/usr/bin/env bash
# Make a virtual environment that holds lddl 0.1.0: the oracle of tests/interop and the peer of the loader benchmark.
#
#   scripts/lddl_env.sh DIR whole   [PYTHON]   # all of lddl, with the libraries of its time
#   LDDL_PYTHON=DIR/bin/python python -m pytest tests/interop/test_lddl.py
#
#   scripts/lddl_env.sh DIR loader  [PYTHON]   # its loader alone, with current libraries: the faster peer
#   python benchmarks/loader.py --lddl_python DIR/bin/python
#
# lddl declares pins that no longer install together, so it goes in without its dependencies.
set -euo pipefail

usage="usage: scripts/lddl_env.sh DIR whole|loader [PYTHON]"
dir=${1:?$usage}
python=${3:-python3}
case ${2:-} in
    whole) libraries=(numpy==1.26.4 pandas==1.5.3 pyarrow==14.0.1 transformers==4.57.6 dask==2021.7.1 distributed==2021.7.1
            dask-mpi==2021.11.0 mpi4py openmpi) ;;
    loader) libraries=(numpy pyarrow transformers) ;;
    *) echo "$usage" >&2; exit 2 ;;
esac

"$python" -m venv "$dir"
VENV=$dir
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
read -ra options <<<"$(torch_options)"
"$dir/bin/python" -m pip install --quiet torch==2.13.0 "${options[@]}"
"$dir/bin/python" -m pip install --quiet "${libraries[@]}" requests nltk
"$dir/bin/python" -m pip install --quiet --no-deps lddl==0.1.0
"$dir/bin/python" -c 'import lddl.torch'
echo "$dir/bin/python has lddl"
