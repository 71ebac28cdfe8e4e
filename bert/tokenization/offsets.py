"""Texts → word pieces, and for each piece the characters of the text that it stands for.

The ids are those of ``tokenizer.encode_batch``. The characters are those of the text as it was given, whatever the
tokenizer drops, splits or replaces on the way::

    pieces = encode_with_offsets(tokenizer, ["the Cafés", "(a)"])
    pieces.spans        # [[0, 3], [4, 8], [8, 9], [0, 1], [1, 2], [2, 3]]: "the", "Café", "s"; "(", "a", ")"
    pieces.offsets      # [0, 3, 6]
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers.normalizers import BertNormalizer

from bert.ragged import offsets_of
from bert.tokenization.tokenizer import BertTokenizer

CLEAN = BertNormalizer(True, handle_chinese_chars=False, strip_accents=False, lowercase=False)
Row = tuple[list[int], list[tuple[int, int]]]  # one text: ids, and characters of each


class Pieces(NamedTuple):
    """The N pieces of n texts, end to end."""

    ids: NDArray[np.int32]  # [N]
    spans: NDArray[np.int32]  # [N, 2], the characters (first, last + 1) of each piece in its text
    offsets: NDArray[np.int64]  # [n + 1]


def encode_with_offsets(tokenizer: BertTokenizer, texts: Sequence[str]) -> Pieces:
    """Cut each text into pieces, on all cores.

    A span begins with a letter and ends with a letter and its marks, which the tokenizer may drop: without them the
    last letter of an answer would lose its accent. What else it drops, such as joiners and control characters, shows
    nothing by itself and is left out at both ends.
    """
    plain = [_is_plain(tokenizer, text) for text in texts]
    others = _encode(tokenizer, [text for text, is_plain in zip(texts, plain, strict=True) if not is_plain])
    lower = tokenizer.do_lower_case
    found = [
        _word_pieces(tokenizer, text.lower() if lower else text) if is_plain else next(others)
        for text, is_plain in zip(texts, plain, strict=True)
    ]
    ids = np.fromiter(chain.from_iterable(ids for ids, _ in found), np.int32)
    ends = chain.from_iterable(chain.from_iterable(spans for _, spans in found))
    return Pieces(ids, np.fromiter(ends, np.int32).reshape(-1, 2), offsets_of([len(ids) for ids, _ in found]))


def _is_plain(tokenizer: BertTokenizer, text: str) -> bool:
    """Tell whether ``text`` is one word that only WordPiece can split."""
    return text.isascii() and text.isalnum() and not tokenizer.extra_tokens and text not in tokenizer.never_split


def _word_pieces(tokenizer: BertTokenizer, word: str) -> Row:
    pieces = tokenizer._word_piece.tokenize(word)
    return [piece.id for piece in pieces], [piece.offsets for piece in pieces]


def _encode(tokenizer: BertTokenizer, texts: Sequence[str]) -> Iterator[Row]:
    """Cut each text as the tokenizer does: the library gets it whole, or its normalised runs between special tokens."""
    alone = tokenizer.added_tokens is not None
    runs = [[(False, text)] if alone else tokenizer._normalizer.runs(text) for text in texts]
    split = [run for cut in runs for kept, run in cut if not kept]
    encoded = iter(tokenizer.library.encode_batch(split, add_special_tokens=False))
    for text, cut in zip(texts, runs, strict=True):
        if cut == [(False, text)]:
            whole = next(encoded)
            # An added token may take the blanks beside it.
            ids, spans = whole.ids, [_stripped(text, *span) for span in whole.offsets] if alone else whole.offsets
        else:
            ids, spans = [], []
            places = _places(text, cut, tokenizer.do_lower_case)
            for (kept, run), place in zip(cut, places, strict=True):
                part = next(encoded) if not kept else None
                found = _word_pieces(tokenizer, run) if part is None else (part.ids, part.offsets)
                ids += found[0]
                spans += [(place[a], place[b - 1] + 1) for a, b in found[1]]
        yield ids, spans if text.isascii() else _with_marks(text, spans)


def _places(text: str, runs: Sequence[tuple[bool, str]], lower: bool) -> Iterator[list[int]]:
    """Yield for each run of ``text`` the character of the text that each of its characters comes from."""
    letters = ((place, letter) for place, letter in enumerate(text) if _is_letter(letter))
    for kept, run in runs:
        places: list[int] = []
        while len(places) < len(run):
            if run[len(places)] == " ":
                places.append(-1)  # no piece begins or ends at a blank
            else:
                place, letter = next(letters)
                places += [place] * (len(letter.lower()) if lower and not kept else 1)  # "İ" becomes two
        yield places


@lru_cache(1 << 16)
def _is_letter(character: str) -> bool:
    """Tell whether cleaning keeps ``character``, and not as a blank."""
    return bool(CLEAN.normalize_str(character).strip())


def _stripped(text: str, start: int, end: int) -> tuple[int, int]:
    part = text[start:end]
    return end - len(part.lstrip()), start + len(part.rstrip())


def _with_marks(text: str, spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Extend each span by the marks that follow it and belong to no piece."""
    limits = [*(start for start, _ in spans[1:]), len(text)]
    extended = []
    for (start, end), limit in zip(spans, limits, strict=False):
        while end < limit and _is_mark(text[end]):
            end += 1
        extended.append((start, end))
    return extended


def _is_mark(character: str) -> bool:
    """Tell whether ``character`` changes the look of the one before it: an accent, a variant, part of a flag."""
    return unicodedata.category(character) in ("Mn", "Me") or "\U000e0020" <= character <= "\U000e007f"
