"""What the model read as pieces → how it stands in the original text, by aligning the two letter by letter.

Pieces are lower-cased, without accents and cut at marks; a reader wants the text as it was written, but no more of it
than the pieces say. Both texts are compared without their blanks::

    get_final_text("steve smith", "Steve Smith's", do_lower_case=True)      # "Steve Smith"
    get_final_text("steve jones", "Steve Smith's", do_lower_case=True)      # "Steve Smith's": found nowhere
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from functools import cache, lru_cache

from tokenizers.pre_tokenizers import BertPreTokenizer

from bert.tokenization import SPECIAL_TOKENS, WordNormalizer

KNOWN_WORDS = 1 << 17


def detokenize(pieces: Iterable[str]) -> str:
    """Join pieces to words: ``["un", "##able", ","]`` → ``"unable ,"``."""
    return " ".join(" ".join(pieces).replace(" ##", "").replace("##", "").split())


def get_final_text(pred_text: str, orig_text: str, do_lower_case: bool, verbose_logging: bool = False) -> str:
    """Return the part of ``orig_text`` that reads as ``pred_text``; all of it where the two cannot be aligned.

    ``verbose_logging`` says on stderr when that happens.
    """
    found = align(pred_text, orig_text, do_lower_case)
    if found is None and verbose_logging:
        print(f"{pred_text!r} cannot be found in {orig_text!r}, which is the answer as a whole", file=sys.stderr)
    return orig_text if found is None else found


def align(pred_text: str, orig_text: str, do_lower_case: bool) -> str | None:
    """Return the part of ``orig_text`` whose words read as ``pred_text``, None where there is no such part.

    ``orig_text`` without blanks must be as long as its words are: a letter that casing takes away or adds ends it.
    """
    words = " ".join(filter(None, (_words(word, do_lower_case) for word in orig_text.split(" "))))
    start = words.find(pred_text) if pred_text else -1
    places = [place for place, letter in enumerate(orig_text) if letter != " "]
    if start < 0 or len(places) != len(words) - words.count(" "):
        return None
    first = start - words.count(" ", 0, start)
    last = first + len(pred_text) - pred_text.count(" ") - 1
    return orig_text[places[first] : places[last] + 1]


@lru_cache(maxsize=KNOWN_WORDS)
def _words(text: str, do_lower_case: bool) -> str:
    """Normalise ``text`` and put blanks between its words and marks, as before WordPiece."""
    normalizer = _normalizer(do_lower_case)
    found: list[str] = []
    for kept, run in normalizer.runs(text):
        found += [run] if kept else _split(normalizer.rest.normalize_str(run))
    return " ".join(found)


def _split(text: str) -> list[str]:
    return [word for word, _ in BertPreTokenizer().pre_tokenize_str(text)]


@cache
def _normalizer(do_lower_case: bool) -> WordNormalizer:
    return WordNormalizer(do_lower_case, never_split=SPECIAL_TOKENS)
