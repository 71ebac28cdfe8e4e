"""The published names of `bert.squad` import in a fresh interpreter, whichever module of it comes first."""

import subprocess
import sys

import pytest

SQUAD = "from bert.squad import read_squad_examples, convert_examples_to_features, RawResult, write_predictions"


@pytest.mark.parametrize("first", ["", "import bert.squad.task"])
def test_the_published_names_import_without_a_circle(first):
    subprocess.run([sys.executable, "-c", f"{first}\n{SQUAD}"], check=True, timeout=120)
