"""Text → WordPiece ids: one value that goes from preparation through shards and checkpoints to the server.

The ``tokenizers`` library splits text into words as BERT does (drop control characters, put spaces around CJK
ideographs, optionally lower-case and strip accents, split off punctuation) and matches each word greedily, longest
piece first::

    tokenizer = BertTokenizer("vocab.txt")
    tokenizer.tokenize("unaffable, [MASK]")        # ['una', '##ffa', '##ble', ',', '[MASK]']
    again = BertTokenizer.from_state_dict(tokenizer.state_dict())

There are two rules for tokens that stay whole. The published implementations keep a special token that stands between
blanks, and :class:`WordNormalizer` says what else they do otherwise. transformers finds ``added_tokens`` anywhere in
the text; with them all is left to the library, so the ids are those of transformers. Unicode categories are the
library's, whatever the Python version.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer, WhitespaceSplit

from bert.errors import UsageError
from bert.tokenization.normalizer import WordNormalizer
from bert.tokenization.vocabulary import (
    CLS,
    MASK,
    PAD,
    SEP,
    SPECIAL_TOKENS,
    UNK,
    UNUSED,
    check_vocabulary,
    fingerprint,
    read_vocabulary,
)


class TokenizerSettings(TypedDict, total=False):
    """What decides the pieces of a text besides the vocabulary and its casing, and what is known of it."""

    max_input_chars_per_word: int  # a longer word is [UNK]
    strip_accents: bool | None  # None: if the text is lower-cased
    never_split: Sequence[str]  # whole where blanks delimit them
    pretokenized: bool  # words end at blanks only
    tokenize_chinese_chars: bool | None  # each ideograph is a word; None: unless pretokenized
    added_tokens: Sequence[dict[str, Any]] | None  # as in tokenizer.json, in the place of never_split
    source: str  # where the value comes from
    guessed: Sequence[str]  # settings that nobody stated


DEFAULTS = TokenizerSettings(
    max_input_chars_per_word=100,
    strip_accents=None,
    never_split=SPECIAL_TOKENS,
    pretokenized=False,
    tokenize_chinese_chars=None,
    added_tokens=None,
    source="",
    guessed=(),
)


class BertTokenizer:
    """WordPiece tokenizer. Two are alike if their :attr:`identity` is."""

    def __init__(
        self,
        vocab: str | Path | Sequence[str | None],
        do_lower_case: bool = True,
        **settings: Unpack[TokenizerSettings],
    ):
        """Take the pieces by id, or read them from a file; raises :class:`UsageError` where it is not a vocabulary.

        None stands for an id that has no piece. Of ids with the same piece, the last one counts.
        """
        if unknown := settings.keys() - DEFAULTS.keys():
            raise TypeError(f"unknown settings of a tokenizer: {', '.join(sorted(unknown))}")
        values: dict[str, Any] = {**DEFAULTS, **settings}
        self._pieces: list[str | None] = [*read_vocabulary(vocab)] if isinstance(vocab, (str, Path)) else list(vocab)
        self.do_lower_case, self.never_split = do_lower_case, tuple(values["never_split"])
        self.pretokenized, ideographs = values["pretokenized"], values["tokenize_chinese_chars"]
        self.tokenize_chinese_chars = not self.pretokenized if ideographs is None else ideographs
        accents, self.max_input_chars_per_word = values["strip_accents"], values["max_input_chars_per_word"]
        self.strip_accents: bool | None = None if accents == do_lower_case else accents
        self.source, self.guessed = values["source"], tuple(values["guessed"])
        self._normalizer = WordNormalizer(
            do_lower_case, self.strip_accents, self.never_split, self.tokenize_chinese_chars
        )
        ids = {piece: index for index, piece in enumerate(self._pieces) if piece is not None}
        self._word_piece = WordPiece(ids, unk_token=UNK, max_input_chars_per_word=self.max_input_chars_per_word)
        added = values["added_tokens"]
        self.library = self._build_library(added or ())
        self.added_tokens = None if added is None else _added_tokens(self.library)
        self.pieces = self._name_ids(ids)
        self.vocab: dict[str, int] = {piece: index for index, piece in enumerate(self.pieces)}  # dense, in id order
        check_vocabulary(self.vocab, self.source or "the tokenizer")
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = map(
            self.vocab.__getitem__, (PAD, UNK, CLS, SEP, MASK)
        )
        self.fingerprint = fingerprint(self._pieces)

    def _build_library(self, added_tokens: Sequence[dict[str, Any]]) -> Tokenizer:
        """Return the library's tokenizer. It numbers ``added_tokens`` itself, as it does for transformers."""
        library = Tokenizer(self._word_piece)
        normalizer = BertNormalizer(True, self.tokenize_chinese_chars, self.strip_accents, self.do_lower_case)
        library.normalizer = normalizer  # type: ignore[assignment]
        splitter = WhitespaceSplit() if self.pretokenized else BertPreTokenizer()
        library.pre_tokenizer = splitter  # type: ignore[assignment]
        if not added_tokens:
            return library
        values = json.loads(library.to_str())
        values["added_tokens"] = sorted(added_tokens, key=lambda token: token["id"])
        try:
            return Tokenizer.from_str(json.dumps(values))
        except Exception as error:  # the library raises Exception itself
            raise UsageError(f"{self.source or 'tokenizer'}: its added tokens cannot be used ({error})") from error

    def _name_ids(self, ids: dict[str, int]) -> list[str]:
        """Return a name for every id: its piece or added token, or UNUSED where no text gets it."""
        named = {index: piece for piece, index in ids.items() if piece}
        named |= {token["id"]: token["content"] for token in self.added_tokens or ()}
        size = max([len(self._pieces), *(index + 1 for index in named)])
        return [named.get(index, UNUSED.format(index)) for index in range(size)]

    def __reduce__(self) -> tuple[Callable[..., "BertTokenizer"], tuple[dict[str, Any]]]:
        return BertTokenizer.from_state_dict, (self.state_dict(),)

    @property
    def vocab_size(self) -> int:
        """Number of ids, before any padding of the embedding table."""
        return len(self.pieces)

    @cached_property
    def used_ids(self) -> NDArray[np.int32]:
        """The ids that a text can get."""
        used = [index for index, piece in enumerate(self.pieces) if piece != UNUSED.format(index)]
        return np.array(used, np.int32)

    @property
    def extra_tokens(self) -> list[dict[str, Any]]:
        """The added tokens but for the five special ones."""
        return [token for token in self.added_tokens or () if token["content"] not in SPECIAL_TOKENS]

    @cached_property
    def is_continuation(self) -> list[bool]:
        """By id: whether the piece belongs to the word before it ("##ing")."""
        return [piece.startswith("##") for piece in self.pieces]

    def tokenize(self, text: str) -> list[str]:
        """Cut ``text`` into pieces; no special tokens are added."""
        return self.convert_ids_to_tokens(self.encode_batch([text])[0])

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Cut each text into piece ids, on all cores; no special tokens are added."""
        if self.added_tokens is not None:
            return [found.ids for found in self.library.encode_batch_fast(list(texts), add_special_tokens=False)]
        runs = [self._normalizer.runs(text) for text in texts]
        # The library gets the runs of all texts in one call; each text's runs are joined again.
        split = [run for cut in runs for kept, run in cut if not kept]
        encoded = (found.ids for found in self.library.encode_batch_fast(split, add_special_tokens=False))
        return [
            list(chain.from_iterable(self._word_ids(run) if kept else next(encoded) for kept, run in cut))
            for cut in runs
        ]

    def encode_words(self, words: Sequence[str]) -> list[list[int]]:
        """Cut each word into piece ids, faster than ``encode_batch`` where most words are plain ASCII."""
        if self.extra_tokens:
            return self.encode_batch(words)
        plain = [word.isascii() and word.isalnum() for word in words]
        others = iter(self.encode_batch([word for word, is_plain in zip(words, plain, strict=True) if not is_plain]))
        return [
            self._word_ids(word.lower() if self.do_lower_case else word) if is_plain else next(others)
            for word, is_plain in zip(words, plain, strict=True)
        ]

    def convert_tokens_to_ids(self, tokens: Iterable[str]) -> list[int]:
        """Map pieces to ids; raises KeyError for a piece outside the vocabulary."""
        return [self.vocab[token] for token in tokens]

    def convert_ids_to_tokens(self, ids: Iterable[int]) -> list[str]:
        """Map ids to pieces; raises IndexError for an id outside the vocabulary."""
        ids = list(ids)
        if any(not 0 <= i < len(self.pieces) for i in ids):
            raise IndexError(f"token id outside the vocabulary of {len(self.pieces)} pieces: {min(ids)}..{max(ids)}")
        return [self.pieces[i] for i in ids]

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that decides the ids of a text, as plain values: what shards and checkpoints are compared by.

        The two rules for whole tokens count as one: they differ where a text holds special tokens.
        """
        lower = self.do_lower_case
        return {
            "vocab_sha256": self.fingerprint,
            "vocab_size": self.vocab_size,
            "do_lower_case": lower,
            "strip_accents": lower if self.strip_accents is None else self.strip_accents,
            "tokenize_chinese_chars": self.tokenize_chinese_chars,
            "pretokenized": self.pretokenized,
            "max_input_chars_per_word": self.max_input_chars_per_word,
            "added_tokens": [[token["content"], token["id"]] for token in self.extra_tokens],
        }

    def difference(self, other: Mapping[str, Any]) -> str | None:
        """Return the first setting of :attr:`identity` that ``other``, which may hold a part of it, has otherwise."""
        mine = self.identity.items()  # of two vocabularies alike, one may have more ids at its end that no text gets
        return next((key for key, value in mine if key != "vocab_size" and other.get(key, value) != value), None)

    def state_dict(self) -> dict[str, Any]:
        """Return the whole value, as plain values for a checkpoint."""
        return {
            "vocab": list(self._pieces),
            "do_lower_case": self.do_lower_case,
            "max_input_chars_per_word": self.max_input_chars_per_word,
            "strip_accents": self.strip_accents,
            "never_split": list(self.never_split),
            "pretokenized": self.pretokenized,
            "tokenize_chinese_chars": self.tokenize_chinese_chars,
            "added_tokens": self.added_tokens,
            "source": self.source,
            "guessed": list(self.guessed),
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> "BertTokenizer":
        """Rebuild the tokenizer that ``state_dict`` described."""
        return cls(**state)

    def _word_ids(self, word: str) -> list[int]:
        return [piece.id for piece in self._word_piece.tokenize(word)]


def _added_tokens(library: Tokenizer) -> list[dict[str, Any]]:
    """Return the added tokens in the form of tokenizer.json, with the ids that they have."""
    return json.loads(library.to_str())["added_tokens"]
