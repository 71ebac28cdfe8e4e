"""What WikiExtractor writes: files AA/wiki_00 of articles in ``<doc id= url= title=>`` or, with --json, one a line.

::

    if extracted_kind(path) == "extracted":
        articles = list(read_extracted(path.read_text()))       # without tags and titles
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path

from bert.errors import UsageError

FILE_NAME = re.compile(r"wiki_\d{2,}(\.bz2)?")
BEGINNING = re.compile(rb'\s*(?:(<doc id="[^"\n]*")|\{"id": ?"\d+", ?(?:"revid": ?"\d*", ?)?"url": ?")')
BOUNDARY = re.compile(rb'(?<![^\n])()<doc id="')  # where the articles of a file may be parted
ARTICLE = re.compile(r'^<doc id="[^\n]*?(?:title="([^\n]*)")?>\s*\n(.*?)(?=^<doc id="|\Z)', re.MULTILINE | re.DOTALL)
TAG = re.compile(r'<doc id="[^\n]*">|</doc>')


def extracted_kind(path: Path) -> str | None:
    """Return "extracted" or "jsonl" if ``path`` begins as WikiExtractor's files do. Raises OSError."""
    with path.open("rb") as file:
        found = BEGINNING.match(file.read(1024).removeprefix(b"\xef\xbb\xbf"))
    return None if found is None else "extracted" if found[1] else "jsonl"


def refuse_extracted(path: Path, flag_name: str) -> None:
    """Raise UsageError if ``path`` is WikiExtractor's: for commands that read nothing but text."""
    if extracted_kind(path):
        raise UsageError(f"{flag_name} {path}: WikiExtractor's output, which data/preprocess.py --text reads")


def read_extracted(text: str) -> Iterator[str]:
    """Yield the articles; each line is a paragraph, and a first line that repeats the title is left out."""
    for title, body in ARTICLE.findall(text):
        lines = html.unescape(body.rstrip().removesuffix("</doc>")).split("\n")
        yield "\n\n".join(lines[lines[0] == html.unescape(title) :])
