#!/usr/bin/env bash
# Make a virtual environment that holds TensorFlow: the oracle of tests/interop/test_tensorflow.py.
#
#   bash scripts/tensorflow_env.sh DIR [PYTHON]
#   TENSORFLOW_PYTHON=DIR/bin/python bash scripts/test.sh tests/interop/test_tensorflow.py
#
# It is one of its own because TensorFlow's dependencies and the suite's need not agree on versions.
set -euo pipefail

dir=${1:?usage: scripts/tensorflow_env.sh DIR [PYTHON]}
python=${2:-python3}
if ! "$dir/bin/python" -c 'import tensorflow' 2>/dev/null; then
  "$python" -m venv "$dir"
  "$dir/bin/python" -m pip install --quiet --disable-pip-version-check tensorflow-cpu==2.21.0
  "$dir/bin/python" -c 'import tensorflow'
fi
echo "$dir/bin/python has TensorFlow"
