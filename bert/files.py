"""Files and folders that are written atomically.

::

    with replacing(Path("vocab.txt")) as temporary:
        temporary.write_text(...)           # an error or a kill here leaves the old vocab.txt unchanged
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``, which replaces it when the block succeeds and the data is on the disk.

    The temporary file is hidden, named after this process, and keeps the suffix, by which writers choose a format.
    Raises OSError as the system does.
    """
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``path`` that is renamed to it when the block succeeds.

    ``path`` must be an empty folder or not exist. Raises OSError as the system does, also if ``path`` is not empty.
    """
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary.mkdir()
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
