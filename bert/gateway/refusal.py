"""What a client is told instead of an answer: a status and one line, as JSON.

::

    raise Refusal(422, "question: expected some text")      # {"error": "question: expected some text"}
"""

import json

MAX_LINE = 300  # characters


class Refusal(Exception):
    """A request without an answer. ``retry_after`` is in seconds."""

    def __init__(self, status: int, line: str, retry_after: int | None = None):
        super().__init__(line)
        self.status, self.line, self.retry_after = status, one_line(line), retry_after

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.retry_after is None else {"retry-after": str(self.retry_after)}


def one_line(text: str) -> str:
    """Return the first line of ``text``, cut, and without the half characters that JSON can carry and UTF-8 cannot."""
    line = (text.strip().splitlines() or ["error"])[0].encode("utf8", "replace").decode("utf8")
    return line if len(line) <= MAX_LINE else line[: MAX_LINE - 1] + "…"


def error_body(line: str) -> bytes:
    return json.dumps({"error": one_line(line)}, ensure_ascii=False).encode("utf8")
