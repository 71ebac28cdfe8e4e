"""Whatever a library raises on a truncated, foreign or damaged file becomes one line that names the file::

with naming(path):
    file = h5py.File(path)      # UsageError: part.3.hdf5: unreadable shard (file signature not found)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bert.errors import UsageError

# pyarrow's own errors derive from these.
UNREADABLE = (OSError, EOFError, KeyError, IndexError, TypeError, ValueError, RuntimeError)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn the errors of reading ``path`` inside the block into UsageError."""
    try:
        yield
    except UsageError:
        raise
    except UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"{path}: unreadable shard ({reason})") from error
