"""Documents of sentences → piece ids, end to end: every distinct word is cut into pieces once.

WordPiece looks at one word at a time, so what the ``tokenizers`` library makes of a text is what it makes of the words
between its blanks, one after another. Natural text repeats its words: looking them up in a table, column by column, is
many times faster than cutting each of them again, and the table is kept from block to block::

    encode = DocumentEncoder(tokenizer)
    tokens = encode([["The cat sat.", "It purred."], ["Another document."]])
    tokens.ids[tokens.sentences[1] : tokens.sentences[2]]          # the pieces of "It purred."
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bert.ragged import offsets_of, ranges
from bert.tokenization import BertTokenizer

KNOWN_WORDS = 1_000_000  # distinct words to remember, some 200 MB at the most; then the table starts again
LETTER, BLANK, MARK = range(3)
NEWLINE = ord("\n")


@dataclass(frozen=True)
class Tokens:
    """D documents of S sentences of T pieces; a sentence without a piece and a document without a sentence are gone."""

    ids: NDArray[np.int32]  # [T]
    sentences: NDArray[np.int64]  # [S + 1], where each sentence begins in ``ids``
    documents: NDArray[np.int64]  # [D + 1], where each document begins in ``sentences``

    @property
    def num_documents(self) -> int:
        return len(self.documents) - 1

    def without_last_document(self) -> Tokens:
        """Return all documents but the last."""
        documents = self.documents[:-1]
        sentences = self.sentences[: documents[-1] + 1]
        return Tokens(self.ids[: sentences[-1]], sentences, documents)


def join(parts: Sequence[Tokens]) -> Tokens:
    """Put the documents of all ``parts`` one after another."""
    sentences = [np.diff(part.sentences) for part in parts]
    documents = [np.diff(part.documents) for part in parts]
    ids = np.concatenate([part.ids for part in parts])
    return Tokens(ids, offsets_of(np.concatenate(sentences)), offsets_of(np.concatenate(documents)))


class DocumentEncoder:
    """Callable: documents, each a list of sentences on one line → :class:`Tokens`."""

    def __init__(self, tokenizer: BertTokenizer) -> None:
        self._tokenizer = tokenizer
        # Not to be cut at marks beforehand: special tokens, and sigmas, whose lower case looks across marks.
        whole = [re.escape(token) for token in tokenizer.never_split] + ["Σ"] * tokenizer.do_lower_case
        self._whole_words = None if tokenizer.pretokenized else re.compile("|".join(whole))
        self._forget()

    def __call__(self, documents: Sequence[Sequence[str]]) -> Tokens:
        lines = [sentence for document in documents for sentence in document]
        careful = self._whole_words is None or any(map(self._whole_words.search, lines))
        words, words_per_line = _cut(lines, _kinds_of_bytes(marks_are_words=not careful))
        distinct = words.dictionary_encode()
        known = self._look_up(distinct.dictionary.to_pylist())
        numbers = known[distinct.indices.to_numpy()]
        starts, counts = self._starts[numbers], self._counts[numbers]
        ids = self._pieces[ranges(starts, counts)]
        sentences = offsets_of(counts)[offsets_of(words_per_line)]
        return _without_empty(ids, sentences, offsets_of(np.array([len(d) for d in documents], np.int64)))

    def _look_up(self, words: list[str]) -> NDArray[np.int64]:
        """Return each word's number in the table, cutting those that it lacks."""
        if len(self._numbers) + len(words) > KNOWN_WORDS:
            self._forget()
        missing = [word for word in words if word not in self._numbers]
        if missing:
            first = len(self._numbers)
            self._numbers.update(zip(missing, range(first, first + len(missing)), strict=True))
            cut = self._tokenizer.encode_words(missing)
            counts = np.fromiter(map(len, cut), np.int64, len(cut))
            self._starts = np.concatenate([self._starts, len(self._pieces) + offsets_of(counts)[:-1]])
            self._counts = np.concatenate([self._counts, counts])
            flat = np.fromiter((piece for pieces in cut for piece in pieces), np.int32, int(counts.sum()))
            self._pieces = np.concatenate([self._pieces, flat])
        return np.fromiter(map(self._numbers.__getitem__, words), np.int64, len(words))

    def _forget(self) -> None:
        self._numbers: dict[str, int] = {}
        self._pieces = np.zeros(0, np.int32)
        self._starts = self._counts = np.zeros(0, np.int64)


def _cut(lines: Sequence[str], kinds: NDArray[np.uint8]) -> tuple[pa.StringArray, NDArray[np.int64]]:
    """Return the words of all lines and the number of words in each; ``kinds`` says what each byte is."""
    # A line break inside a sentence would count as the end of a line.
    text = "\n".join(line.replace("\n", " ") if "\n" in line else line for line in lines) + "\n"
    data = np.frombuffer(text.encode(), np.uint8)
    kind = kinds[data]
    alone = kind == MARK
    begins = alone.copy()  # a mark is a word; so is what comes after a mark, a blank or the end of a line
    begins[0] |= kind[0] == LETTER
    begins[1:] |= (kind[1:] == LETTER) & (kind[:-1] != LETTER)
    kept = alone | (kind == LETTER)
    words = np.flatnonzero(begins[kept]).astype(np.int32)
    letters = data[kept]
    bounds = pa.py_buffer(np.append(words, np.int32(len(letters))))
    ends = np.searchsorted(np.flatnonzero(begins), np.flatnonzero(data == NEWLINE))
    return pa.StringArray.from_buffers(len(words), bounds, pa.py_buffer(letters)), np.diff(ends, prepend=0)


def _kinds_of_bytes(marks_are_words: bool) -> NDArray[np.uint8]:
    """Return the kind of each byte; those above 127 belong to letters that the library will look at."""
    kinds = np.full(256, LETTER, np.uint8)
    kinds[list(b" \t\n\r")] = BLANK
    if marks_are_words:
        kinds[list(string.punctuation.encode())] = MARK
    return kinds


def _without_empty(ids: NDArray[np.int32], sentences: NDArray[np.int64], documents: NDArray[np.int64]) -> Tokens:
    full = np.diff(sentences) > 0
    documents = offsets_of(full)[documents]
    kept = np.append(documents[:-1][np.diff(documents) > 0], documents[-1])
    return Tokens(ids, np.append(sentences[:-1][full], len(ids)), kept)
