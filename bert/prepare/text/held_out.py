"""Folders of plain text → one sentence a line, blank lines between documents, a part of them held out.

A line goes on in the next one where it does not end a sentence, so hard-wrapped prose, one paragraph a line and one
sentence a line all work. A block between blank lines is a document where blocks are long (an article each); where
they are short (paragraphs of one text) the whole file is, cut into parts of ``PART`` sentences::

    write_split(read_documents("my_texts"), "prepared", held_out=0.05)     # prepared/train/*.txt, prepared/eval/*.txt
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bert.config import flag
from bert.errors import UsageError
from bert.files import replacing
from bert.prepare.text.sentences import split_sentences

PART = 100  # sentences in a document that was cut out of a longer text
ARTICLE = 4  # sentences; blocks that are at least this long on average are documents of their own


@dataclass
class TextConfig:
    text: str = flag(help="Folder of .txt files (searched recursively), or one file.")
    output: str = flag(help="Folder to write train/ and eval/ to.")
    language: str = flag("en", help="Language of the text, for finding sentences, such as en, de or zh.")
    held_out: float = flag(0.05, "Share of the documents that goes to eval/.", minimum=0.0, maximum=0.5)


def split_documents(text: str, language: str = "en") -> list[list[str]]:
    """Cut one file into documents of sentences."""
    blocks = [split_sentences(block, language) for block in re.split(r"\n\s*\n", text) if block.strip()]
    sentences = [sentence for block in blocks for sentence in block]
    if blocks and len(sentences) / len(blocks) >= ARTICLE:
        return blocks
    return [sentences[start : start + PART] for start in range(0, len(sentences), PART)]


def read_documents(source: str | Path, language: str = "en") -> Iterator[list[str]]:
    """Yield the documents of a file, or of all .txt files below a folder, in the order of their names."""
    root = Path(source)
    files = [root] if root.is_file() else sorted(root.rglob("*.txt"))
    if not files:
        raise UsageError(f"--text {source}: expected a .txt file or a folder that holds some")
    for file in files:
        try:
            yield from split_documents(file.read_text(encoding="utf8"), language)
        except UnicodeDecodeError as error:
            raise UsageError(f"--text {file}: not UTF-8 text (byte {error.start})") from error


def write_split(documents: Iterable[list[str]], output: str | Path, held_out: float) -> tuple[int, int]:
    """Write train/text.txt and eval/text.txt, holding out evenly spread documents; return how many went where."""
    parts: tuple[list[str], list[str]] = ([], [])
    owed = 0.0
    for document in documents:
        owed += held_out
        parts[owed >= 1].append("\n".join(document))
        owed -= owed >= 1
    train, evaluation = parts
    if held_out and not evaluation and len(train) > 1:
        evaluation.append(train.pop())
    if not train:
        raise UsageError("--text: no sentence was found")
    for name, part in (("train", train), ("eval", evaluation)):
        target = Path(output) / name / "text.txt"
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as temporary:
            temporary.write_text("\n\n".join(part) + "\n", encoding="utf8")
    return len(train), len(evaluation)
