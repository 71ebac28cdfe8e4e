"""Text → WordPiece vocabulary: the command ``data/train_vocab.py``.

Words are split as :class:`bert.tokenization.BertTokenizer` splits them and counted; the alphabet is chosen from the
counts, and the ``tokenizers`` library merges the most frequent neighbours until the vocabulary is full. The file
depends on the text and the settings alone, not on the order of the files, the number of threads or the run::

    train_vocabulary(VocabularyConfig(["corpus/"], "vocab.txt", vocab_size=8000))
"""

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import BertPreTokenizer, WhitespaceSplit
from tokenizers.trainers import WordPieceTrainer

from bert.config import flag
from bert.errors import UsageError, naming_os_errors
from bert.files import replacing
from bert.log.progress import progress
from bert.prepare.text.characters import report
from bert.prepare.text.extracted import TAG, extracted_kind
from bert.prepare.text.inputs import find_files, prepare_output, read_lines
from bert.tokenization import CLS, MASK, PAD, SEP, SPECIAL_TOKENS, UNK, WordNormalizer
from bert.tokenization.files import settings_beside

UNKNOWN_WARNING = 0.05  # share of [UNK] above which the vocabulary or the casing hardly fits the text
FIRST_PIECES = (PAD, UNK, CLS, SEP, MASK)  # [PAD] is id 0, the value that padded shards and embeddings expect
LONGEST_WORD = 100  # the tokenizer turns longer words into [UNK]
WORDS_AT_ONCE = 1000


@dataclass
class VocabularyConfig:
    """What to read, how many pieces to make, and where to write them."""

    text: list[str] = flag(help="Text files, patterns or directories searched for .txt files.")
    output: str = flag(help="Vocabulary file to write, one piece a line.")
    vocab_size: int = flag(30522, "Pieces, special tokens included; multiples of 8 need no padding.", minimum=6)
    do_lower_case: bool = flag(True, "Lower-case the text and strip accents, for an uncased model.")
    strip_accents: bool | None = flag(None, "Strip accents; by default if the text is lower-cased.")
    tokenize_chinese_chars: bool | None = flag(None, "Make each ideograph a word; by default unless --pretokenized.")
    pretokenized: bool = flag(False, "Split the text at blanks only, because another tokenizer has cut it into words.")
    min_frequency: int = flag(2, "Occurrences that a pair of pieces needs to be merged.", minimum=1)
    character_coverage: float = flag(
        0.9999,
        "Share of the text's characters that the alphabet covers, most frequent first; ASCII is always kept. "
        "A word with any other character becomes [UNK].",
        minimum=0,
        maximum=1,
    )
    disable_progress_bar: bool = flag(False, "Show no progress bars.")


def train_vocabulary(config: VocabularyConfig) -> None:
    """Count, choose, merge and write; raises :class:`UsageError` where a flag or file is wrong."""
    output = Path(config.output)
    prepare_output(output, "--output")
    files = find_files(config.text, "--text")
    with progress(
        total=sum(path.stat().st_size for path in files),
        description="Counting words",
        unit="B",
        disable=config.disable_progress_bar,
    ) as bar:
        invalid: Counter[str] = Counter()
        blocks = (lines for path in files for lines in _lines_of(path, bar, invalid))
        words = count_words(blocks, config)
    report(invalid)
    if not words:
        raise UsageError(f"--text {' '.join(config.text)}: no text in {len(files)} file(s)")
    alphabet = choose_alphabet(words, config.character_coverage)
    spelled = {word: count for word, count in words.items() if alphabet.issuperset(word)}
    pieces = build_vocabulary(spelled, config.vocab_size, config.min_frequency, not config.disable_progress_bar)
    _write(output, pieces, config)
    _report(output, pieces, words, spelled, config.vocab_size)


def _lines_of(path: Path, bar: Any, invalid: Counter[str]) -> Iterator[list[str]]:
    """Read the lines of a file, without the tags of WikiExtractor."""
    kind = extracted_kind(path)
    if kind == "jsonl":
        raise UsageError(f"--text {path}: WikiExtractor's JSON, expected its output without --json")
    for lines in read_lines(path, bar, invalid, "--text"):
        yield [line for line in lines if not TAG.fullmatch(line)] if kind else lines


def _write(output: Path, pieces: list[str], config: VocabularyConfig) -> None:
    """Write the vocabulary, and beside it how text is to be cut for it."""
    names = ("do_lower_case", "strip_accents", "tokenize_chinese_chars", "pretokenized")
    stated = {name: getattr(config, name) for name in names if getattr(config, name) is not None}
    own = {"never_split": SPECIAL_TOKENS, "guessed": [], "source": output.name}
    settings = {"tokenizer_class": "BertTokenizer", **stated, **own}
    beside = settings_beside(output)
    with naming_os_errors(f"--output {output}"), replacing(beside) as config_file, replacing(output) as vocab_file:
        config_file.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf8")
        vocab_file.write_text("".join(f"{piece}\n" for piece in pieces), encoding="utf8", newline="\n")


def warn_of_unknown(share: float) -> None:
    """Warn on stderr where the ``share`` of pieces that are [UNK] is large."""
    if share > UNKNOWN_WARNING:
        print(
            f"warning: {share:.0%} of the pieces are [UNK]: do --vocab_file and --do_lower_case fit the text?",
            file=sys.stderr,
        )


def count_words(blocks: Iterable[list[str]], config: VocabularyConfig) -> Counter[str]:
    """Count the words in blocks of lines; punctuation marks are words of their own, unless the text is cut already."""
    chosen = config.tokenize_chinese_chars
    ideographs = not config.pretokenized if chosen is None else chosen
    normalize = WordNormalizer(config.do_lower_case, config.strip_accents, SPECIAL_TOKENS, ideographs)
    splitter = BertPreTokenizer()
    words: Counter[str] = Counter()
    for lines in blocks:
        # A block has few distinct words, so the slow split at punctuation is done once for each.
        for word, count in Counter(normalize("\n".join(lines)).split()).items():
            if word in SPECIAL_TOKENS:
                continue
            whole = config.pretokenized or word.isalnum()
            for part in [word] if whole else [part for part, _ in splitter.pre_tokenize_str(word)]:
                if len(part) <= LONGEST_WORD:
                    words[part] += count
    return words


def choose_alphabet(words: dict[str, int], coverage: float) -> set[str]:
    """Return the most frequent characters that make up ``coverage`` of the text, and all ASCII ones that occur."""
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for character in word:
            counts[character] += count
    missing = counts.total() * (1 - coverage)
    alphabet = set(counts)
    # Drop the rarest first; of equally rare characters, the later code point.
    for character, count in sorted(counts.items(), key=lambda item: (item[1], -ord(item[0]))):
        if count > missing:
            break
        if not character.isascii():
            alphabet.remove(character)
            missing -= count
    return alphabet


def build_vocabulary(words: dict[str, int], vocab_size: int, min_frequency: int, show_progress: bool) -> list[str]:
    """Return the special tokens, the characters, their "##" forms that occur, and the merged pieces in merge order."""
    single = sorted({character for word in words for character in word})
    continuing = sorted({f"##{character}" for word in words for character in word[1:]})
    # Given in advance and in order, characters get the same ids in every run. The library would number them in the
    # order of its hash table, and it breaks ties between equally frequent pairs by these numbers.
    given = [*FIRST_PIECES, *single, *continuing]
    if len(given) > vocab_size:
        raise UsageError(
            f"--vocab_size {vocab_size}: the special tokens and the alphabet of this text need {len(given)}; "
            "raise it, or lower --character_coverage"
        )
    tokenizer = Tokenizer(WordPiece(unk_token=UNK))
    tokenizer.pre_tokenizer = WhitespaceSplit()  # type: ignore[assignment]
    trainer = WordPieceTrainer(
        vocab_size=vocab_size, min_frequency=min_frequency, special_tokens=given, show_progress=show_progress
    )
    tokenizer.train_from_iterator(_repeated(words), trainer)
    ids = tokenizer.get_vocab(with_added_tokens=False)
    return sorted(ids, key=ids.__getitem__)


def _repeated(words: dict[str, int]) -> Iterator[str]:
    """Yield every word as often as it was counted, in lines of limited length."""
    for word, count in sorted(words.items()):
        full, rest = divmod(count, WORDS_AT_ONCE)
        line = f"{word} " * WORDS_AT_ONCE
        for _ in range(full):
            yield line
        yield f"{word} " * rest


def _report(path: Path, pieces: list[str], words: dict[str, int], spelled: dict[str, int], vocab_size: int) -> None:
    unknown = 1 - sum(spelled.values()) / sum(words.values())
    print(f"{path}: {len(pieces)} pieces; {unknown:.2%} of the text's words hold a character outside the alphabet")
    if len(pieces) < vocab_size:
        print(f"the text supports no more than {len(pieces)} of --vocab_size {vocab_size}")
