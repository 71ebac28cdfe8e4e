"""Step aside for the Triton compiler, whose import name is this folder's.

Python started in the repository's root, or with it on its path, finds this folder at ``import triton``. It then looks
for the compiler on the rest of the path and puts that in its own place. Where none is installed it says so, as if this
folder did not exist: torch and transformers ask for ``triton`` to find out whether there is a compiler.

The commands here are scripts, ``python triton/export.py``, and are never imported as ``triton.export``.
"""

import importlib.util
import sys
from importlib.machinery import PathFinder
from pathlib import Path


def _step_aside() -> None:
    root = Path(__file__).resolve().parents[1]
    elsewhere = [place for place in sys.path if Path(place or ".").resolve() != root]
    spec = PathFinder.find_spec("triton", elsewhere)
    if spec is None or spec.loader is None:  # none, or a folder without code
        sys.modules.pop("triton", None)
        raise ModuleNotFoundError("No module named 'triton'", name="triton")
    module = sys.modules["triton"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


_step_aside()
