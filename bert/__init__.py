"""BERT training suite: two-phase pre-training, fine-tuning and serving in modern PyTorch.

Importing this package first keeps the project's own ``triton/`` folder from posing as the Triton compiler.
"""

import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec

__version__ = "0.1.0"


def _is_namespace_only(spec: ModuleSpec | None) -> bool:
    return spec is not None and spec.origin is None


# A command run from the repository root has ./triton (the serving scripts) on sys.path. Where no Triton compiler is
# installed, `import triton` would succeed with an empty namespace package and torch.compile would fail far from here.
if "triton" not in sys.modules and _is_namespace_only(find_spec("triton")):
    sys.modules["triton"] = None  # type: ignore[assignment]  # makes `import triton` an ImportError
