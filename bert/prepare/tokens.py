"""Documents of sentences → piece ids, end to end: every distinct word is cut into pieces once.

WordPiece looks at one word at a time, so the pieces of a text are those of its words in order. Natural text repeats its
words: looking them up in a table, column by column, is many times faster than cutting each occurrence, and the table is
kept from block to block::

    encode = DocumentEncoder(tokenizer)
    tokens = encode([["The cat sat.", "It purred."], ["Another document."]])
    tokens.ids[tokens.sentences[1] : tokens.sentences[2]]          # the pieces of "It purred."
"""

from __future__ import annotations

import re
import string
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bert.ragged import offsets_of, ranges
from bert.tokenization import BertTokenizer

KNOWN_WORDS = 1_000_000  # distinct words to remember, at most about 200 MB; then the table starts again
LETTER, BLANK, MARK = range(3)
NEWLINE = ord("\n")


@dataclass(frozen=True)
class Tokens:
    """D documents of S sentences of T pieces; sentences without pieces and documents without sentences are dropped."""

    ids: NDArray[np.int32]  # [T]
    sentences: NDArray[np.int64]  # [S + 1], where each sentence begins in ``ids``
    documents: NDArray[np.int64]  # [D + 1], where each document begins in ``sentences``

    @property
    def num_documents(self) -> int:
        return len(self.documents) - 1


def join(parts: Sequence[Tokens]) -> Tokens:
    """Put the documents of all ``parts`` one after another."""
    sentences = [np.diff(part.sentences) for part in parts]
    documents = [np.diff(part.documents) for part in parts]
    ids = np.concatenate([part.ids for part in parts])
    return Tokens(ids, offsets_of(np.concatenate(sentences)), offsets_of(np.concatenate(documents)))


class DocumentEncoder:
    """Callable: documents, each a list of sentences → :class:`Tokens`.

    Threads that share an encoder take turns. A pickled copy starts with an empty table.
    """

    def __init__(self, tokenizer: BertTokenizer) -> None:
        self.tokenizer = tokenizer
        # Not to be split at punctuation: special tokens, and words with a sigma, whose lower case depends on what
        # follows, punctuation included.
        whole = [re.escape(token) for token in tokenizer.never_split] + ["Σ"] * tokenizer.do_lower_case
        extra = [token["content"] for token in tokenizer.extra_tokens]
        self._whole_words = None if tokenizer.pretokenized or extra else re.compile("|".join(whole))
        self._whole_lines = any(len(content.split()) > 1 for content in extra)
        self._lock = threading.Lock()
        self._forget()

    def __reduce__(self) -> tuple[type[DocumentEncoder], tuple[BertTokenizer]]:
        return DocumentEncoder, (self.tokenizer,)

    def __call__(self, documents: Sequence[Sequence[str]]) -> Tokens:
        lines = [sentence for document in documents for sentence in document]
        careful = self._whole_words is None or any(map(self._whole_words.search, lines))
        kinds = _kinds_of_bytes(marks_are_words=not careful, blanks=b"\n" if self._whole_lines else b" \t\n\r")
        words, words_per_line = _cut(lines, kinds)
        distinct = words.dictionary_encode()
        with self._lock:
            known = self._look_up(distinct.dictionary.to_pylist())
            numbers = known[distinct.indices.to_numpy()]
            starts, counts = self._starts[numbers], self._counts[numbers]
            ids = self._pieces[ranges(starts, counts)]
        sentences = offsets_of(counts)[offsets_of(words_per_line)]
        return _without_empty(ids, sentences, offsets_of(np.array([len(d) for d in documents], np.int64)))

    def _look_up(self, words: list[str]) -> NDArray[np.int64]:
        """Return each word's number in the table, after adding the words that it lacks."""
        if len(self._numbers) + len(words) > KNOWN_WORDS:
            self._forget()
        missing = [word for word in words if word not in self._numbers]
        if missing:
            first = len(self._numbers)
            self._numbers.update(zip(missing, range(first, first + len(missing)), strict=True))
            cut = self.tokenizer.encode_words(missing)
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
    """Return the words of all lines and the number of words in each; ``kinds`` gives the kind of every byte."""
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


def _kinds_of_bytes(marks_are_words: bool, blanks: bytes) -> NDArray[np.uint8]:
    """Return the kind of each byte; those above 127 count as letters, and the tokenizer cuts their words further."""
    kinds = np.full(256, LETTER, np.uint8)
    kinds[list(blanks)] = BLANK
    if marks_are_words:
        kinds[list(string.punctuation.encode())] = MARK
    return kinds


def _without_empty(ids: NDArray[np.int32], sentences: NDArray[np.int64], documents: NDArray[np.int64]) -> Tokens:
    full = np.diff(sentences) > 0
    documents = offsets_of(full)[documents]
    kept = np.append(documents[:-1][np.diff(documents) > 0], documents[-1])
    return Tokens(ids, np.append(sentences[:-1][full], len(ids)), kept)
