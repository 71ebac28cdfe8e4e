"""A user's own Python in the repository's root must work as if the folder ``triton`` were not there.

Each case is a process of its own, by an interpreter without site-packages: the only compiler is one that a test makes.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TRY = """
try:
    import triton
    print(triton.language, triton.helper.name)
except ModuleNotFoundError as error:
    print("none", error.name)
"""


def run(code: str, *paths: Path, options: tuple[str, ...] = ("-S",), cwd: Path = ROOT) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    done = subprocess.run(
        [sys.executable, *options, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def compiler(tmp_path):
    """Return a folder that holds a package triton with a module of its own."""
    package = tmp_path / "site" / "triton"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from triton import helper\nlanguage = 'real'")
    (package / "helper.py").write_text("name = 'helper'")
    return package.parent


@pytest.mark.parametrize("first", ["", "import bert\n"], ids=["without bert", "with bert"])
def test_the_compiler_is_found(compiler, first):
    assert run(first + TRY, compiler) == "real helper"


@pytest.mark.parametrize("first", ["", "import bert\n"], ids=["without bert", "with bert"])
def test_without_a_compiler_there_is_no_triton(first):
    assert run(first + TRY) == "none triton"


def test_the_root_further_down_the_path(compiler, tmp_path):
    assert run(TRY, ROOT, compiler, cwd=tmp_path) == "real helper"
    assert run(TRY, ROOT, cwd=tmp_path) == "none triton"


def test_a_second_try_finds_none_again():
    assert run(f"{TRY}\n{TRY}") == "none triton\nnone triton"


def test_a_folder_without_code_is_not_taken_for_the_compiler(tmp_path):
    (tmp_path / "triton").mkdir()
    assert run(TRY, tmp_path) == "none triton"


@pytest.mark.slow
def test_torch_agrees():
    """PyTorch's answer to whether there is a compiler does not depend on the folder it is asked in."""
    code = "import torch.utils._triton as t; print(t.has_triton_package())"
    here, elsewhere = run(code, options=()), run(code, options=(), cwd=Path("/"))
    assert here == elsewhere


@pytest.mark.slow
def test_transformers_imports_in_the_root():
    pytest.importorskip("transformers")
    assert run("import transformers; print(transformers.BertForSequenceClassification.__name__)", options=()) == (
        "BertForSequenceClassification"
    )
