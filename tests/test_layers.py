"""The package is layered: a module imports only from lower layers or from its own folder."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "bert"

# From the ground up. `errors` and `config` lie below the rest: every settings class declares its flags with them.
LAYERS = [
    {"__version__", "errors", "files", "batch", "ragged"},
    {"config", "lock", "memory"},
    {"tokenization"},
    {"sequences", "model", "optim", "data", "distributed", "log", "report"},
    {"train", "shards"},
    {"checkpoint", "features", "prepare"},
    {"pretrain", "finetune", "download"},
    {"squad", "glue", "doctor", "lddl_commands", "gateway"},
    {"serve", "multi_task"},
    {"client"},
    {"deployment"},
]
LAYER_OF = {unit: layer for layer, units in enumerate(LAYERS) for unit in units}


def imported_modules(tree: ast.AST, package: tuple[str, ...]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield (line, dotted name as a tuple) for every import, also those inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, tuple(alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            base = start + (tuple(node.module.split(".")) if node.module else ())
            for alias in node.names:  # `from bert import config` names a module, `from bert.config import flag` a thing
                yield node.lineno, (*base, alias.name)


def violations(package: Path) -> list[str]:
    """Return a line for each import in ``package`` that goes sideways or up, or that leaves the table."""
    found = []
    for file in sorted(package.rglob("*.py")):
        parts = (package.name, *file.relative_to(package).with_suffix("").parts)
        unit = parts[1]
        where = file.relative_to(package.parent).as_posix()
        if unit not in LAYER_OF and unit != "__init__":
            found.append(f"{where}: {unit} is in no layer")
            continue
        for line, name in imported_modules(ast.parse(file.read_text(encoding="utf8")), parts[:-1]):
            if name[0] != package.name or name[1:2] == (unit,):
                continue
            target = name[1] if len(name) > 1 else "__init__"
            if target not in LAYER_OF:
                found.append(f"{where}:{line}: imports {'.'.join(name)}, which is in no layer")
            elif unit == "__init__" or LAYER_OF[target] >= LAYER_OF[unit]:
                found.append(f"{where}:{line}: {unit} imports {target}, which is not on a lower layer")
    return found


def test_every_import_goes_down():
    assert violations(PACKAGE) == []


def test_every_entry_of_the_table_is_a_module_or_a_folder():
    modules = {file.relative_to(PACKAGE).with_suffix("").parts[0] for file in PACKAGE.rglob("*.py")}
    assert set(LAYER_OF) - {"__version__"} == modules - {"__init__"}


PLANTED = [
    ("model/bert.py", "from bert.optim.lamb import Lamb", "model imports optim"),
    ("data/loader.py", "import bert.model.config", "data imports model"),
    ("log/backends.py", "def f():\n    from bert.distributed import rank", "log imports distributed"),
    ("config.py", "from bert import log", "config imports log"),
    ("memory.py", "from .checkpoint import save", "memory imports checkpoint"),
    ("optim/build.py", "from ..train.trainer import Trainer", "optim imports train"),
    ("optim/build.py", "from .. import train", "optim imports train"),
    ("squad/task.py", "if TYPE_CHECKING:\n    from bert.glue import tasks", "squad imports glue"),
    ("train/trainer.py", "import bert", "imports bert, which is in no layer"),
    ("__init__.py", "from bert.config import flag", "__init__ imports config"),
    ("misc.py", "", "misc is in no layer"),
    ("model/bert.py", "from bert.misc import thing", "bert.misc.thing, which is in no layer"),
]


@pytest.mark.parametrize(("file", "source", "message"), PLANTED, ids=[f"{p[0]}: {p[1]}" for p in PLANTED])
def test_a_planted_violation_is_found(tmp_path, file, source, message):
    planted = tmp_path / "bert" / file
    planted.parent.mkdir(parents=True)
    planted.write_text(source)
    (line,) = violations(tmp_path / "bert")
    assert line.startswith(f"bert/{file}:")
    assert message in line


ALLOWED = [
    ("model/bert.py", "from bert.model.layers import Layer\nfrom . import heads\nfrom .layers import Layer"),
    (
        "checkpoint/resume.py",
        "import torch\nfrom bert.errors import UsageError\nimport bert.train\nfrom ..data import x",
    ),
    ("log/logger.py", "from bert.config import flag\nfrom ..errors import UsageError\nimport bertopic"),
]


@pytest.mark.parametrize(("file", "source"), ALLOWED, ids=[a[0] for a in ALLOWED])
def test_downward_and_own_folder_imports_are_fine(tmp_path, file, source):
    planted = tmp_path / "bert" / file
    planted.parent.mkdir(parents=True)
    planted.write_text(source)
    assert violations(tmp_path / "bert") == []
