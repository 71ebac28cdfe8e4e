"""The one error that a user can cause: a bad flag or a bad file.

``raise UsageError("--max_steps 0: expected at least 1")`` anywhere below an entry point ends the command with that
line on stderr and exit code 2.
"""


class UsageError(ValueError):
    """Wrong input. The message is one line: the flag or file, its value, and what was expected."""
