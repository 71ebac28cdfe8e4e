"""Files that appear whole or not at all.

with replacing(Path("vocab.txt")) as temporary:
    temporary.write_text(...)           # an error or a kill here leaves the old vocab.txt as it was
"""

from __future__ import annotations

import os
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
