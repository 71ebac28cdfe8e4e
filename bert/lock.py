"""One process at a time in a folder, or at an output file: a lock that ends with its process, however that ends.

::

    with owning(Path("results"), "--output_dir results"):    # "error: --output_dir results: process 71 on node7 ..."
        ...
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from bert.errors import UsageError, naming_os_errors

LOCK = ".lock"
HELD = (errno.EACCES, errno.EAGAIN)


@contextmanager
def owning(folder: str | Path, what: str, name: str = LOCK) -> Iterator[None]:
    """Make ``folder`` and keep other processes out of it; what was made and is still empty at the end is removed.

    Raises UsageError, which begins with ``what`` and names the holder, where another process owns it. On a file system
    without locks a notice is printed instead. The lock file disappears at the end; one that a killed process has left
    locks nothing.
    """
    folder = Path(folder)
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    with naming_os_errors(what):
        folder.mkdir(parents=True, exist_ok=True)
    path, descriptor = folder / name, None
    try:
        with naming_os_errors(what):
            descriptor = _lock(path, what)
        yield
    finally:
        if descriptor is not None:
            with suppress(OSError):  # removed with its folder
                path.unlink()
            os.close(descriptor)
        with suppress(OSError):  # not empty
            for each in made:
                each.rmdir()


def owning_output(path: str | Path, what: str) -> AbstractContextManager[None]:
    """Keep other processes from writing ``path``, a file or a folder that appears at the end; as :func:`owning`."""
    path = Path(os.path.abspath(path))
    return owning(path.parent, what, f".{path.name}{LOCK}")


def _lock(path: Path, what: str) -> int | None:
    """Return the descriptor of the locked file; None where the file system has no locks."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            # Not flock, which a forked child would hold on to after this process was killed.
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(descriptor, path):  # else its last owner has just removed it
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
                return descriptor
            os.close(descriptor)
        except OSError as error:
            holder = os.read(descriptor, 200).decode(errors="replace") or "another process"
            os.close(descriptor)
            if error.errno in HELD:
                raise UsageError(f"{what}: {holder} writes there, expected one process at a time") from error
            print(f"{what}: cannot be locked ({error.strerror}); start only one run there", file=sys.stderr)
            return None


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
