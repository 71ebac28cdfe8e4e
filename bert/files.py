"""Files and folders that appear whole or not at all.

with replacing(Path("vocab.txt")) as temporary:
    temporary.write_text(...)           # an error or a kill here leaves the old vocab.txt as it was
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path beside ``path`` that takes its name, once on the disk, when the block ends well.

    Hidden, of this process, and with the same suffix, since writers go by it. Raises OSError as the system does.
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
    """Yield an empty folder beside ``path`` that takes its name when the block ends well.

    ``path`` may be an empty folder, or not exist. Raises OSError as the system does, also where something is there.
    """
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary.mkdir()
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
