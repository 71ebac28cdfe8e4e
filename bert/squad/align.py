"""Map a predicted answer, read as word pieces, back to the original text by aligning the two letter by letter.

Pieces are lower-cased, stripped of accents and split at punctuation. The answer should read as the text was written,
but cover no more of it than the pieces do. The comparison ignores blanks::

    get_final_text("steve smith", "Steve Smith's", do_lower_case=True)      # "Steve Smith"
    get_final_text("steve jones", "Steve Smith's", do_lower_case=True)      # "Steve Smith's": not found
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from functools import lru_cache

from tokenizers.pre_tokenizers import BertPreTokenizer

from bert.tokenization import SPECIAL_TOKENS, WordNormalizer

CACHED_WORDS = 1 << 17
NORMALIZERS = {lower: WordNormalizer(lower, never_split=SPECIAL_TOKENS) for lower in (True, False)}


def detokenize(pieces: Iterable[str]) -> str:
    """Join pieces to words: ``["un", "##able", ","]`` → ``"unable ,"``."""
    return " ".join(" ".join(pieces).replace(" ##", "").replace("##", "").split())


def get_final_text(pred_text: str, orig_text: str, do_lower_case: bool, verbose_logging: bool = False) -> str:
    """Return the part of ``orig_text`` that reads as ``pred_text``, or all of it if the two cannot be aligned.

    They cannot if ``pred_text`` is not in it, or if normalisation changes the number of letters; ``verbose_logging``
    reports that on stderr.
    """
    words = " ".join(filter(None, (_words(word, do_lower_case) for word in orig_text.split(" "))))
    start = words.find(pred_text) if pred_text else -1
    places = [place for place, letter in enumerate(orig_text) if letter != " "]
    if start < 0 or len(places) != len(words) - words.count(" "):
        if verbose_logging:
            print(f"{pred_text!r} not found in {orig_text!r}, which becomes the whole answer", file=sys.stderr)
        return orig_text
    first = start - words.count(" ", 0, start)
    last = first + len(pred_text) - pred_text.count(" ") - 1
    return orig_text[places[first] : places[last] + 1]


@lru_cache(maxsize=CACHED_WORDS)
def _words(text: str, do_lower_case: bool) -> str:
    """Normalise ``text`` and separate its words and punctuation by blanks, as the tokenizer does before WordPiece."""
    normalizer = NORMALIZERS[do_lower_case]
    found: list[str] = []
    for kept, run in normalizer.runs(text):
        split = [] if kept else BertPreTokenizer().pre_tokenize_str(normalizer.rest.normalize_str(run))
        found += [run] if kept else [word for word, _ in split]
    return " ".join(found)
