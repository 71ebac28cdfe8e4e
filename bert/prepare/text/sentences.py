r"""Running text → sentences.

The cuts are those of sentencex (Wikimedia's rules and lists of abbreviations; no model, no download), without the few
that are plainly wrong. Of 76 tricky texts in 24 languages sentencex splits 61 correctly, and 71 with the amendments
below, which were made for them; pysbd 57, syntok 50, blingfire 49. On English, one core does 28-66 MB/s, and 24 with
the amendments; blingfire 20-28, syntok 1.2, pysbd 0.3.

Blank lines always end a sentence, single newlines are blanks. Only white space is lost or added, and time grows
linearly with the text, whatever it contains::

    split_sentences("Dr. No left. She\nstayed.")          # ["Dr. No left.", "She stayed."]
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

from sentencex import segment  # type: ignore[attr-defined]  # compiled, without stubs

from bert.errors import UsageError

WINDOW = 2000  # characters that sentencex sees at once: it is quadratic in text without ASCII blanks or paired quotes
LONG = 500  # characters; a longer "sentence" is usually many, held together by unpaired quotation marks

PARAGRAPH_BREAK = re.compile(r"\n(?:[^\S\n]*\n)+")
LANGUAGE = re.compile(r"([a-z]{2,3})(?:[-_][a-z0-9]+)*")
LIST_MARKER = re.compile(r"[(\[]?(?:\d{1,3}|[ivxlcIVXLC]{1,6}|[^\W\d_])[.)\]]+")
OPENING = "\"'`“‘„‚«‹»›"  # marks that begin a quotation somewhere
CLOSING = "”"

# What sentencex wrongly takes for the end of a sentence, by language (others as "en"): more abbreviations, titles
# before a name that is also a common first word (Dr. No), ordinals.
ABBREVIATIONS = """
    Abp approx Atty Bp Chas Ch Dr Edw Eq Eqs Figs Ft Geo Jas Jos Mr Mrs Ms Prof Robt Thos Vol Vols vol vols Wm
"""
WITH_ORDINALS = ["bs", "cs", "da", "de", "et", "fi", "hr", "hu", "is", "lv", "nb", "nn", "no", "pl", "sk", "sl", "tr"]
NO_END = {
    "en": tuple(f" {word}." for word in ABBREVIATIONS.split()),
    "fr": (" M.", " MM.", " Mme.", " Mlle."),
    **dict.fromkeys(WITH_ORDINALS, tuple(f" {number}." for number in range(1, 32))),
}


def split_sentences(text: str, language: str = "en") -> list[str]:
    """Cut ``text`` into sentences: stripped, not empty, with every run of white space replaced by one blank.

    ``language`` is an ISO 639 code; what follows a hyphen in it (``pt-BR``) makes no difference. For a language without
    rules of its own, sentencex uses those of a close one or of English, which know the full stops of all scripts.
    A stretch of more than ``WINDOW`` characters without the end of a sentence is cut at a blank. Lone surrogates, which
    UTF-8 files cannot hold, become U+FFFD. Raises UsageError if ``language`` is not a code.
    """
    code = _language_code(language)
    try:
        return [s for paragraph in PARAGRAPH_BREAK.split(text) for s in _join(_cut(paragraph, code), code)]
    except UnicodeEncodeError:
        return split_sentences(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"), language)


@lru_cache
def _language_code(language: str) -> str:
    match = LANGUAGE.fullmatch("en" if language == "simple" else language.lower())
    if not match:
        raise UsageError(f"--language {language}: expected an ISO 639 code: two or three letters, as en, de or zh")
    return match[1]


def _cut(paragraph: str, code: str) -> Iterator[str]:
    """Cut ``paragraph`` where sentencex ends a sentence; joined, the parts are the paragraph."""
    start = 0
    while start < len(paragraph):
        window = paragraph[start : start + WINDOW]
        pieces = list(_segment(window, code))
        if start + WINDOW < len(paragraph):  # the last sentence may continue after the window
            if len(pieces) > 1:
                pieces.pop()
            else:
                pieces = [window[: max(window.rfind(" "), window.rfind("\n")) + 1 or WINDOW]]
        yield from pieces
        start += sum(map(len, pieces))


def _segment(window: str, code: str) -> Iterator[str]:
    for piece in segment(code, window):
        if len(piece) <= LONG:
            yield piece
        else:  # again with closing marks only: none opens a quotation, and the lengths stay the same
            start, closed = 0, piece
            for mark in OPENING:  # much faster than str.translate
                closed = closed.replace(mark, CLOSING)
            for part in segment(code, closed):
                yield piece[start : start + len(part)]
                start += len(part)


def _join(pieces: Iterable[str], code: str) -> list[str]:
    """Undo the cuts within sentences, and tidy the white space."""
    sentences: list[str] = []
    for piece in pieces:
        if sentences and len(sentences[-1]) < WINDOW and _continues(sentences[-1].rstrip(), piece, code):
            sentences[-1] += piece
        else:
            sentences.append(piece)
    tidy = (" ".join(sentence.split()) for sentence in sentences)
    return [sentence for sentence in tidy if sentence]


def _continues(sentence: str, following: str, code: str) -> bool:
    """Whether ``following`` belongs to ``sentence``, the text before it."""
    if sentence.endswith("."):
        if f" {sentence[-10:]}".endswith(NO_END.get(code, NO_END["en"])):
            return True
        if following[0].islower() and not sentence[0].islower():  # text all in lower case has only its full stops
            return following.split(None, 1)[0].rstrip(".,;:!?").islower()  # unlike iPhone
    if len(sentence) < 10 and LIST_MARKER.fullmatch(sentence.lstrip()):
        return True
    return code == "ja" and following[0] == "と" and sentence.endswith(("」", "』"))  # "...", said
