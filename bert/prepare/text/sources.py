"""What the user names → blocks → documents as lists of sentences.

Blocks depend on the files and the block size alone. Every document is in one block or, if it is longer, in several,
marked as such (:class:`~bert.prepare.text.blocks.Block`). Planning reads only sizes and small windows of large files;
reading a block needs memory for that block::

    blocks = plan_blocks(SourceConfig(text=["corpus/"]), Path("work"), block_size=4 << 20, num_blocks=None,
                         show_progress=True)
    documents = read_block(blocks[0], config)       # [["A sentence.", "Another one."], ...]
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bert.config import flag
from bert.errors import UsageError, naming_os_errors
from bert.log.progress import progress
from bert.prepare.text.blocks import Block, FileSpan, pack
from bert.prepare.text.extracted import extracted_kind
from bert.prepare.text.inputs import DECOMPRESSORS, compressed, find_files, unpack
from bert.prepare.text.readers import SOURCE_KINDS
from bert.prepare.text.sentences import split_sentences
from bert.prepare.text.wikidump import is_multistream

SMALLEST_BLOCK = 1 << 16  # bytes, where --num_blocks asks for more blocks than a small text can sensibly fill
TEXT, JSON, TABLE = compressed(".txt"), compressed(".jsonl", ".json"), (".parquet",)


@dataclass
class SourceConfig:
    """What to read; several kinds together are one corpus, in this order."""

    text: list[str] | None = flag(
        None,
        "Plain text in UTF-8: files, patterns, or folders searched for .txt files (.txt.gz, .bz2, .xz). --documents "
        "says what separates documents; the text is split into sentences.",
    )
    documents: str = flag(
        "blank",
        "What separates the documents of --text. blank: blank lines. line: every line is a document. file: every file "
        "is a document, and blank lines separate its paragraphs.",
        choices=["blank", "line", "file"],
    )
    sentences: list[str] | None = flag(
        None, "Text already split: .txt files with one sentence a line and a blank line between documents."
    )
    jsonl: list[str] | None = flag(
        None,
        "One JSON object a line, each a document with its text under --text_key: .jsonl and .json files, or folders.",
    )
    parquet: list[str] | None = flag(
        None, "Tables, each row a document with its text in the column --text_key: .parquet files, or folders."
    )
    text_key: str = flag("text", "Name of the text in the objects of --jsonl and the tables of --parquet.")
    wikipedia: str | None = flag(
        None,
        "Wikipedia: a MediaWiki dump (.xml or .xml.bz2; a multistream dump is not unpacked), a folder of dumps, or "
        "LDDL's folder (source/LANGUAGE/*.txt; a line is an identifier and an article).",
    )
    books: str | None = flag(None, "LDDL's folder of books (source/*.txt; a line is an identifier and a book).")
    common_crawl: str | None = flag(
        None, "LDDL's folder of news (source/*.txt; a line is an identifier and an article)."
    )
    language: str = flag(
        "en", "Language of the text, for splitting it into sentences, such as en, de or zh.", aliases=["wikipedia_lang"]
    )


def plan_blocks(
    config: SourceConfig, work: Path, *, block_size: int | None, num_blocks: int | None, show_progress: bool
) -> list[Block]:
    """Cut the sources into blocks of about ``block_size`` bytes, or into about ``num_blocks`` of 64 KiB or more.

    Compressed files that cannot be read from the middle are unpacked below ``work`` first. Raises UsageError where a
    source is missing, empty or of the wrong kind.
    """
    if (block_size is None) == (num_blocks is None):
        raise UsageError("--block_size and --num_blocks: expected one of them")
    split_sentences("", config.language)  # raises UsageError where the language is not a code
    found = [
        (kind, unpack(path, work, flag_name, show_progress) if kind != "dump streams" else path, flag_name)
        for kind, path, flag_name in _find(config)
    ]
    files = [(_actual_kind(kind, path), path, flag_name) for kind, path, flag_name in found]
    if extracted := sum(one[0] != other[0] for one, other in zip(files, found, strict=True)):
        print(f"{extracted} of {len(files)} files are WikiExtractor's: each article is a document")
    if not files:
        raise UsageError("no source: expected --text, --sentences, --jsonl, --parquet, --wikipedia or another")
    total = sum(span.size for kind, path, _ in files for span in _spans(kind, path, sys.maxsize, config.text_key))
    if not total:
        raise UsageError(f"{files[0][2]} {files[0][1]}: the sources hold no text, every file is empty")
    size = block_size or max(SMALLEST_BLOCK, -(-total // (num_blocks or 1)))
    bar = progress(files, description="Planning", unit="file", disable=not show_progress)
    return pack((span for kind, path, _ in bar for span in _spans(kind, path, size, config.text_key)), size)


def read_block(block: Block, config: SourceConfig, invalid: Counter[str] | None = None) -> list[list[str]]:
    """Return the documents of a block, each a list of sentences; none of them is empty.

    Characters that are passed over are counted in ``invalid``, by file. Raises UsageError, with the file and the place
    in it, where the text is not what it should be.
    """
    documents: list[list[str]] = []
    for span in block.spans:
        kind = SOURCE_KINDS[span.kind]
        with naming_os_errors(span.path):
            texts = kind.read(span, config.text_key, Counter() if invalid is None else invalid)
            documents += filter(None, (kind.split(text, config.language) for text in texts))
    return documents


def _actual_kind(kind: str, path: Path) -> str:
    """Return the row of SOURCE_KINDS for a file that was named as ``kind``."""
    if kind in ("parquet", "dump streams"):
        return kind
    with naming_os_errors(str(path)):
        return extracted_kind(path) or kind


def _spans(kind: str, path: Path, block_size: int, key: str) -> Iterator[FileSpan]:
    with naming_os_errors(str(path)):
        for cut in SOURCE_KINDS[kind].cuts(path, block_size, key):
            yield FileSpan(kind, str(path.absolute()), *cut)


def _find(config: SourceConfig) -> Iterator[tuple[str, Path, str]]:
    """Yield (row of SOURCE_KINDS, file, flag) of all files, in the order of the flags."""
    for flag_name, inputs, kind, suffixes in (
        ("--text", config.text, config.documents, TEXT),
        ("--sentences", config.sentences, "sentences", TEXT),
        ("--jsonl", config.jsonl, "jsonl", JSON),
        ("--parquet", config.parquet, "parquet", TABLE),
    ):
        for path in find_files(inputs, flag_name, suffixes) if inputs else []:
            yield kind, path, flag_name
    if config.wikipedia:
        for kind, path in _wikipedia(Path(config.wikipedia), config.language):
            yield kind, path, "--wikipedia"
    for flag_name, folder in (("--books", config.books), ("--common_crawl", config.common_crawl)):
        for path in find_files([str(_inside(Path(folder), "source"))], flag_name, TEXT) if folder else []:
            yield "lddl", path, flag_name


def _wikipedia(path: Path, language: str) -> Iterator[tuple[str, Path]]:
    """Yield (row of SOURCE_KINDS, file) of dumps, or of LDDL's texts, which may lie beside the dump they come from."""
    source = _inside(_inside(path, "source"), language)
    if source != path:
        yield from (("lddl", file) for file in find_files([str(source)], "--wikipedia", TEXT))
        return
    found = find_files([str(path)], "--wikipedia", (".xml", ".txt", *DECOMPRESSORS))
    dumps = [file for file in found if ".xml" in file.name]  # the numbers of their pages may follow the suffix
    for file in dumps or found:
        if ".txt" in file.name and not dumps:
            yield "lddl", file
        else:
            yield "dump streams" if file.suffix == ".bz2" and is_multistream(file) else "dump", file


def _inside(folder: Path, name: str) -> Path:
    return folder / name if (folder / name).is_dir() else folder
