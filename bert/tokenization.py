"""Text → WordPiece ids: vocabulary, casing and special tokens as one value that is saved with a checkpoint.

The ``tokenizers`` library splits text into words as BERT does (drop control characters, put spaces around CJK
ideographs, optionally lower-case and strip accents, split off punctuation) and matches each word greedily, longest
piece first. A line of the vocabulary file is a piece, and its line number is the id::

    tokenizer = BertTokenizer("vocab.txt")
    tokenizer.tokenize("unaffable, [MASK]")        # ['una', '##ffa', '##ble', ',', '[MASK]']
    again = BertTokenizer.from_state_dict(tokenizer.state_dict())

Three things differ from the library's own BERT tokenizer and follow the published implementations: a special token
stays whole only between blanks, a capital sigma at the end of a word becomes ς, and the first 256 ideographs of CJK
extension E are spaced like the others. Unicode categories are the library's, whatever the Python version.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from itertools import chain, groupby
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer, WhitespaceSplit

from bert.errors import UsageError, naming_os_errors

PAD, UNK, CLS, SEP, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
SPECIAL_TOKENS = (UNK, SEP, PAD, CLS, MASK)

# Ideographs that a typo in the library's table leaves out (2B920 for 2B820).
_UNSPACED_IDEOGRAPH = "[\U0002b820-\U0002b91f]"


def read_vocabulary(path: str | Path) -> list[str]:
    """Read the pieces of a vocabulary file in id order; raises :class:`UsageError` if BERT cannot use it."""
    try:
        with naming_os_errors(f"--vocab_file {path}"):
            text = Path(path).read_text(encoding="utf8").rstrip("\n")
    except UnicodeDecodeError as error:
        raise UsageError(f"--vocab_file {path}: not UTF-8 text (byte {error.start})") from error
    # Split at "\n" alone: a piece may be a Unicode line separator, as in the published Chinese vocabulary.
    lines = text.split("\n") if text else []
    pieces = [line.strip() or line for line in lines]
    check_vocabulary(pieces, f"--vocab_file {path}")
    return pieces


def check_vocabulary(pieces: Sequence[str], source: str) -> None:
    """Raise :class:`UsageError` unless ``pieces`` are non-empty, unique and hold the five special tokens."""
    if not pieces:
        raise UsageError(f"{source}: the vocabulary is empty, expected one piece a line")
    first: dict[str, int] = {}
    for number, piece in enumerate(pieces, start=1):
        if not piece:
            raise UsageError(f"{source}: line {number} is blank, expected one piece a line")
        if first.setdefault(piece, number) != number:
            raise UsageError(f"{source}: piece {piece!r} is on line {first[piece]} and again on line {number}")
    missing = [token for token in SPECIAL_TOKENS if token not in first]
    if missing:
        raise UsageError(f"{source}: no line for {' '.join(missing)}, expected all of {' '.join(SPECIAL_TOKENS)}")


def looks_uncased(pieces: Iterable[str]) -> bool:
    """Tell whether a vocabulary is uncased: no piece but the special tokens has a capital letter."""
    return not any(piece != piece.lower() for piece in pieces if piece not in SPECIAL_TOKENS)


class WordNormalizer:
    """Text → text with blanks between words: BERT's cleaning and casing, before the split at punctuation."""

    def __init__(
        self,
        do_lower_case: bool = True,
        strip_accents: bool | None = None,
        never_split: Iterable[str] = (),
        spaced_ideographs: bool = True,
    ):
        self._never_split = frozenset(never_split)
        self._lower = do_lower_case
        self._clean = BertNormalizer(True, handle_chinese_chars=spaced_ideographs, strip_accents=False, lowercase=False)
        self.rest = BertNormalizer(True, spaced_ideographs, strip_accents, do_lower_case)
        starts = "|".join(re.escape(start) for start in sorted({token[:1] for token in self._never_split}))
        unspaced = _UNSPACED_IDEOGRAPH if spaced_ideographs else ""
        self._unspaced = re.compile(unspaced or "(?!)")
        self._careful = re.compile("|".join(filter(None, (starts, "Σ" if do_lower_case else "", unspaced))) or "(?!)")

    def __call__(self, text: str) -> str:
        """Normalise ``text``, except for ``never_split`` words."""
        return " ".join(run if kept else self.rest.normalize_str(run) for kept, run in self.runs(text))

    def runs(self, text: str) -> list[tuple[bool, str]]:
        """Cut ``text`` into ``(kept, run)``: a kept run is one special token, any other still needs ``rest``."""
        if not self._careful.search(text):
            return [(False, text)]
        cleaned = self._unspaced.sub(r" \g<0> ", self._clean.normalize_str(text))
        runs: list[tuple[bool, str]] = []
        for kept, words in groupby(cleaned.split(), key=self._never_split.__contains__):
            if kept:
                runs.extend((True, word) for word in words)
            else:
                # str.lower knows the word-final sigma; the library lower-cases letter by letter.
                run = " ".join(words)
                runs.append((False, run.lower() if self._lower else run))
        return runs


class BertTokenizer:
    """WordPiece tokenizer; ``never_split`` tokens pass through whole where blanks delimit them."""

    def __init__(
        self,
        vocab: str | Path | Sequence[str],
        do_lower_case: bool = True,
        max_input_chars_per_word: int = 100,
        strip_accents: bool | None = None,
        never_split: Sequence[str] = SPECIAL_TOKENS,
        pretokenized: bool = False,
    ):
        """Take the pieces, or read them from a file; raises :class:`UsageError` where a file is not a vocabulary.

        ``strip_accents`` None follows ``do_lower_case``. ``pretokenized`` splits text at blanks only: punctuation and
        ideographs stay within their word.
        """
        self._pieces = read_vocabulary(vocab) if isinstance(vocab, (str, Path)) else list(vocab)
        self._settings: dict[str, Any] = {
            "do_lower_case": do_lower_case,
            "max_input_chars_per_word": max_input_chars_per_word,
            "strip_accents": strip_accents,
            "never_split": list(never_split),
            "pretokenized": pretokenized,
        }
        self.do_lower_case, self.pretokenized, self.never_split = do_lower_case, pretokenized, tuple(never_split)
        self.vocab: dict[str, int] = {piece: index for index, piece in enumerate(self._pieces)}
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = map(
            self.vocab.__getitem__, (PAD, UNK, CLS, SEP, MASK)
        )
        self.fingerprint: str = hashlib.sha256("\n".join(self._pieces).encode()).hexdigest()
        self._normalizer = WordNormalizer(do_lower_case, strip_accents, never_split, spaced_ideographs=not pretokenized)
        self._word_piece = WordPiece(self.vocab, unk_token=UNK, max_input_chars_per_word=max_input_chars_per_word)
        self._tokenizer = Tokenizer(self._word_piece)
        self._tokenizer.normalizer = self._normalizer.rest  # type: ignore[assignment]
        splitter = WhitespaceSplit() if pretokenized else BertPreTokenizer()
        self._tokenizer.pre_tokenizer = splitter  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Callable[..., "BertTokenizer"], tuple[dict[str, Any]]]:
        return BertTokenizer.from_state_dict, (self.state_dict(),)

    @property
    def vocab_size(self) -> int:
        """Number of pieces, before any padding of the embedding table."""
        return len(self._pieces)

    @cached_property
    def is_continuation(self) -> list[bool]:
        """By id: whether the piece belongs to the word before it ("##ing")."""
        return [piece.startswith("##") for piece in self._pieces]

    def tokenize(self, text: str) -> list[str]:
        """Cut ``text`` into pieces; no special tokens are added."""
        return self.convert_ids_to_tokens(self.encode_batch([text])[0])

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Cut each text into piece ids, on all cores; no special tokens are added."""
        runs = [self._normalizer.runs(text) for text in texts]
        # The library gets the runs of all texts in one call; each text's runs are joined again.
        split = [run for cut in runs for kept, run in cut if not kept]
        encoded = (found.ids for found in self._tokenizer.encode_batch_fast(split, add_special_tokens=False))
        return [
            list(chain.from_iterable(self._word_ids(run) if kept else next(encoded) for kept, run in cut))
            for cut in runs
        ]

    def encode_words(self, words: Sequence[str]) -> list[list[int]]:
        """Cut each word into piece ids, faster than ``encode_batch`` where most words are plain ASCII."""
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
        if any(not 0 <= i < len(self._pieces) for i in ids):
            raise IndexError(f"token id outside the vocabulary of {len(self._pieces)} pieces: {min(ids)}..{max(ids)}")
        return [self._pieces[i] for i in ids]

    def copy_library(self) -> Tokenizer:
        """Return a copy of the library's tokenizer: normalizer, splitter and pieces, without added tokens."""
        return Tokenizer.from_str(self._tokenizer.to_str())

    def state_dict(self) -> dict[str, Any]:
        """Return everything that decides the tokenisation, as plain values for a checkpoint."""
        return {"vocab": list(self._pieces), **self._settings, "never_split": list(self._settings["never_split"])}

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> "BertTokenizer":
        """Rebuild the tokenizer that ``state_dict`` described."""
        check_vocabulary(state["vocab"], "tokenizer in the checkpoint")
        return cls(**state)

    def _word_ids(self, word: str) -> list[int]:
        return [piece.id for piece in self._word_piece.tokenize(word)]
