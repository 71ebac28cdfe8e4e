"""The one error that a user can cause: a bad flag or a bad file.

``raise UsageError("--max_steps 0: expected at least 1")`` anywhere below an entry point ends the command with that
line on stderr and exit code 2::

    with naming_os_errors(f"--output {path}"):
        path.write_text(text)               # "--output a/b.txt: No space left on device"
"""

from collections.abc import Iterator
from contextlib import contextmanager


class UsageError(ValueError):
    """Wrong input. The message is one line: the flag or file, its value, and what was expected."""


@contextmanager
def naming_os_errors(what: str) -> Iterator[None]:
    """Turn an OSError inside the block into a UsageError that begins with ``what``: the flag or file."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"{what}: {error.strerror or error}") from error
