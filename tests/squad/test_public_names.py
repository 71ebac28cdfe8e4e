"""What `bert.squad` and `bert.glue` export, and that a fresh interpreter can import it."""

import subprocess
import sys

import pytest

import bert.glue
import bert.squad

SQUAD = "from bert.squad import read_squad_examples, convert_examples_to_features, RawResult, write_predictions"


@pytest.mark.parametrize("package", [bert.squad, bert.glue], ids=lambda package: package.__name__)
def test_every_public_name_exists(package):
    assert all(hasattr(package, name) for name in package.__all__)


@pytest.mark.parametrize("first", ["", "import bert.squad.task"])
def test_the_published_names_import_without_a_circle(first):
    subprocess.run([sys.executable, "-c", f"{first}\n{SQUAD}"], check=True, timeout=120)
