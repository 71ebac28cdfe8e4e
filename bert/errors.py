"""The one error that a user can cause: a bad flag or a bad file.

``raise UsageError("--max_steps 0: expected at least 1")`` anywhere below an entry point ends the command with that
line on stderr and exit code 2.
"""

from collections.abc import Iterator
from contextlib import contextmanager


class UsageError(ValueError):
    """Wrong input. The message is one line: the flag or file, its value, and what was expected."""


@contextmanager
def os_errors(where: object) -> Iterator[None]:
    """Turn an OSError (a missing file, a full disk) into a UsageError that starts with ``where``: a flag or file."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"{where}: {error.strerror or error}") from error
