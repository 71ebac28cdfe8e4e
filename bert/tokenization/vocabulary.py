"""The vocabulary file: a line is a piece, and its line number is the id.

Ids stay as they are. A blank line, and a line whose piece comes again further down, are ids that no text gets.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from bert.errors import UsageError, naming_os_errors

PAD, UNK, CLS, SEP, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
SPECIAL_TOKENS = (UNK, SEP, PAD, CLS, MASK)
UNUSED = "[id={}]"  # name of an id that no text gets


def read_vocabulary(path: str | Path) -> list[str]:
    """Read the pieces of a vocabulary file in id order; raises :class:`UsageError` if BERT cannot use it."""
    try:
        with naming_os_errors(f"--vocab_file {path}"):
            text = Path(path).read_text(encoding="utf-8-sig").rstrip("\n")
    except UnicodeDecodeError as error:
        raise UsageError(f"--vocab_file {path}: not UTF-8 text (byte {error.start})") from error
    # Split at "\n" alone: a piece may be a Unicode line separator, as in the published Chinese vocabulary.
    lines = text.split("\n") if text else []
    pieces = [line.strip() or line.strip("\r") for line in lines]
    check_vocabulary(pieces, f"--vocab_file {path}")
    return pieces


def check_vocabulary(pieces: Iterable[str], source: str) -> None:
    """Raise :class:`UsageError` unless ``pieces`` hold the five special tokens."""
    held = set(pieces)
    if not any(held):
        raise UsageError(f"{source}: the vocabulary is empty, expected one piece a line")
    missing = [token for token in SPECIAL_TOKENS if token not in held]
    if missing:
        raise UsageError(f"{source}: no line for {' '.join(missing)}, expected all of {' '.join(SPECIAL_TOKENS)}")


def fingerprint(pieces: Iterable[str | None]) -> str:
    """Return the SHA-256 of a vocabulary, in hexadecimal; ids at its end that no text gets do not count."""
    return hashlib.sha256("\n".join(piece or "" for piece in pieces).rstrip("\n").encode()).hexdigest()


def looks_uncased(pieces: Iterable[str | None]) -> bool:
    """Guess whether a vocabulary is uncased: no piece has a capital letter, but for marks such as [CLS] and <S>."""
    return not any(piece != piece.lower() and f"{piece[0]}{piece[-1]}" not in ("[]", "<>") for piece in pieces if piece)
