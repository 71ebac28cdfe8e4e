r"""MediaWiki dumps (pages-articles, .xml or .xml.bz2) → plain text of their articles.

A multistream .bz2 is many bz2 streams end to end, each of some hundred pages; an .xml is pages end to end. Both can be
read from anywhere: however a file is divided into ranges, each article comes from exactly one of them. Memory is
bounded by the longest page::

    size = path.stat().st_size
    for start, stop in [(0, size // 2), (size // 2, size)]:
        for article in read_articles(path, start, stop):
            print(article.split("\n\n")[0])        # its first paragraph
"""

from __future__ import annotations

import bz2
import html
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from xml.etree import ElementTree

from bert.errors import UsageError
from bert.prepare.text.characters import decode_xml
from bert.prepare.text.wikitext import plain_text

CHUNK = 1 << 18  # bytes read or unpacked at a time
LONGEST_HEADER = 1 << 20  # bytes
LONGEST_PAGE = 1 << 30  # bytes, with all its revisions

STREAM = re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)")  # the second: an empty stream
STREAM_END = 0x177245385090  # 48 bits, then 32 of a checksum and 0 to 7 that fill the byte
PAGE, PAGE_END = b"<page>", b"</page>"  # cannot occur within a page, where "<" is "&lt;"
NAMESPACE = re.compile(rb'<namespace key="(-2|6|14)"[^<>]*>([^<>]+)</namespace>')  # media, files, categories
REDIRECT = re.compile(r"\s*#redirect", re.IGNORECASE)
# A paragraph that ends a sentence or is long: not all scripts have full stops.
PROSE = re.compile(r"""[.!?…。！？।؟۔።։။]["'”’»)\]」』]*$|^.{100}""", re.MULTILINE)


def is_multistream(path: Path) -> bool:
    """Whether the file has several bz2 streams, each of whole pages, so that they can be read one by one.

    False for several streams that cut through pages, as pbzip2 writes them. Raises UsageError for a damaged stream.
    """
    second, size = next_stream(path, 1), path.stat().st_size
    start = b""
    for data in _unpack(path, second, size) if second < size else ():
        start = (start + data).lstrip()
        if len(start) >= 100:
            break
    return start.startswith((PAGE, b"</mediawiki>"))


def next_stream(path: Path, position: int) -> int:
    """Return the offset of the first bz2 stream that begins at or after ``position``; the file's size if none does.

    The bytes that begin a stream may occur by chance, but not right after the bytes that end one.
    """
    overlap = 32  # more than the end of a stream and the beginning of another
    with path.open("rb") as file:
        offset = file.seek(max(position - overlap, 0))
        window = b""
        while data := file.read(CHUNK):
            window += data
            for match in STREAM.finditer(window):
                start = offset + match.start()
                if start >= position and (
                    start == 0 or _ends_stream(window[max(match.start() - 11, 0) : match.start()])
                ):
                    return start
            offset += max(len(window) - overlap, 0)
            window = window[-overlap:]
        return file.seek(0, 2)


def read_articles(path: Path, start: int, stop: int, invalid: Counter[str] | None = None) -> Iterator[str]:
    """Yield the articles of the bz2 streams, or in an .xml of the pages, that begin in [``start``, ``stop``).

    An article is paragraphs with blank lines between them. Other namespaces, redirects and pages without a sentence
    are left out. Characters that XML cannot hold are passed over and counted in ``invalid``. Raises UsageError, with
    the file and the place, where the file is damaged, incomplete or not a dump.
    """
    packed, dropped = _read_header(path)
    invalid = Counter() if invalid is None else invalid
    begin = next_stream(path, start) if packed else start
    pages = _pages(_unpack(path, begin, stop), path) if packed else _pages(_read(path, begin), path, stop - begin)
    for offset, page in pages:
        try:
            try:
                wikitext = _article(page)
            except ElementTree.ParseError:
                wikitext = _article(decode_xml(page, str(path), invalid))
        except ElementTree.ParseError as error:
            place = f"byte {offset} of what is unpacked from byte {begin} on" if packed else f"byte {begin + offset}"
            raise UsageError(f"{path}: broken XML in the page at {place} ({error})") from error
        text = plain_text(wikitext, dropped)
        if PROSE.search(text):
            yield text


def _read_header(path: Path) -> tuple[bool, frozenset[str]]:
    """Return whether the file is packed, and the names of the namespaces that hold no text, in lower case."""
    with path.open("rb") as file:
        packed = file.read(3) == b"BZh"
    header = b""
    for data in _unpack(path, 0, 1) if packed else _read(path, 0):
        header += data
        if b"</siteinfo>" in header or len(header) > LONGEST_HEADER:
            break
    if b"<mediawiki" not in header:
        raise UsageError(f"{path}: not a MediaWiki dump, expected <mediawiki> at its beginning")
    names = (html.unescape(name.decode("utf8", "replace")).lower() for _, name in NAMESPACE.findall(header))
    return packed, frozenset(names)


def _article(page: bytes | str) -> str:
    """Return the wikitext of a page in XML; "" if it is not an article. A page by itself cannot declare entities."""
    element = ElementTree.fromstring(page)
    revision = element.find("revision[last()]")  # the newest
    if revision is None or element.findtext("ns", "0").strip() != "0" or element.find("redirect") is not None:
        return ""
    text = revision.findtext("text") or ""
    is_article = revision.findtext("model", "wikitext") == "wikitext" and not REDIRECT.match(text)
    return text if is_article else ""


def _pages(chunks: Iterable[bytes], path: Path, stop: float = float("inf")) -> Iterator[tuple[int, bytes]]:
    """Yield (offset, ``<page>...</page>``) of the pages that begin before ``stop`` in the joined chunks."""
    buffer = bytearray()
    offset = searched = 0  # where the buffer begins in the chunks; how much of it has been searched for a mark
    inside = False
    for chunk in chunks:
        buffer += chunk
        while (place := buffer.find(PAGE_END if inside else PAGE, searched)) >= 0:
            cut = place + len(PAGE_END) if inside else place
            if inside:
                yield offset, bytes(buffer[:cut])
            elif offset + place >= stop:
                return
            del buffer[:cut]
            offset, searched, inside = offset + cut, 0, not inside
        if not inside:
            cut = max(len(buffer) - len(PAGE), 0)
            del buffer[:cut]
            offset += cut
            if offset >= stop:
                return
        searched = max(len(buffer) - len(PAGE_END), 0)
        if len(buffer) > LONGEST_PAGE:
            raise UsageError(f"{path}: a page of more than {LONGEST_PAGE >> 20} MiB, expected a dump of articles")
    if inside:
        raise UsageError(f"{path}: ends within a page, the file is not complete")


def _read(path: Path, start: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(start)
        while data := file.read(CHUNK):
            yield data


def _unpack(path: Path, start: int, stop: int) -> Iterator[bytes]:
    """Yield the content of the bz2 streams from the one at ``start`` to the last that begins before ``stop``."""
    with path.open("rb") as file:
        file.seek(start)
        packed = b""
        while start < stop and (packed or (packed := file.read(CHUNK))):
            stream = bz2.BZ2Decompressor()
            while not stream.eof:
                if stream.needs_input and not (packed or (packed := file.read(CHUNK))):
                    raise UsageError(f"{path}: ends within the bz2 stream at byte {start}, the file is not complete")
                try:
                    data = stream.decompress(packed, CHUNK)
                except OSError as error:
                    raise UsageError(f"{path}: damaged bz2 stream at byte {start}") from error
                packed = b""
                yield data
            packed = stream.unused_data
            start = file.tell() - len(packed)


def _ends_stream(tail: bytes) -> bool:
    bits = int.from_bytes(tail, "big")
    return any(bits >> (32 + fill) & (1 << 48) - 1 == STREAM_END for fill in range(8))
