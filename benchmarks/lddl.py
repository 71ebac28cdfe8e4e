"""What the benchmarks against lddl share."""

from __future__ import annotations

import os
import shutil

from bert.errors import UsageError


def check_python(python: str) -> None:
    """Raise UsageError unless ``python`` is a program."""
    if not shutil.which(python):
        raise UsageError(f"--lddl_python {python!r}: expected a Python with lddl (scripts/lddl_env.sh makes one)")


def clean_environment() -> dict[str, str]:
    """Return the environment without variables that would make lddl's Python import this suite's packages."""
    return {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}


def describe_shards(static_masks: bool, bin_size: int) -> str:
    return f"{'static' if static_masks else 'dynamic'} masks, {f'bins of {bin_size}' if bin_size else 'no bins'}"
