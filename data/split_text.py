"""Split a folder of plain text into sentences, and hold out a part of the documents for evaluation.

    python data/split_text.py --text my_texts --output prepared     # prepared/train/text.txt, prepared/eval/text.txt

Both files have one sentence a line and a blank line between documents. Sentences of the input may span lines, so
hard-wrapped prose, one paragraph a line and one sentence a line all work. If the blocks between a file's blank lines
are long on average, as articles are, each is a document; otherwise the file is cut into documents of 100 sentences.
"""

import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from a checkout without installation

from bert.config import flag, run_command
from bert.errors import UsageError
from bert.files import replacing
from bert.prepare.text.characters import decode, report
from bert.prepare.text.extracted import refuse_extracted
from bert.prepare.text.inputs import find_files
from bert.prepare.text.sentences import split_sentences

PART = 100  # sentences in a document that was cut out of a longer text
ARTICLE = 4  # sentences; blocks that are at least this long on average are documents of their own


@dataclass
class SplitTextConfig:
    text: str = flag(help="Folder of .txt files (searched recursively), or one file.")
    output: str = flag(help="Folder to write train/ and eval/ to.")
    language: str = flag("en", help="Language of the text, for splitting it into sentences, such as en, de or zh.")
    held_out: float = flag(0.05, "Share of the documents that goes to eval/.", minimum=0.0, maximum=0.5)


def main(config: SplitTextConfig) -> None:
    train, evaluation = write_split(read_documents(config.text, config.language), config.output, config.held_out)
    print(f"{config.output}: {train} documents in train/, {evaluation} in eval/")


def split_documents(text: str, language: str = "en") -> list[list[str]]:
    """Cut one file into documents of sentences."""
    blocks = [split_sentences(block, language) for block in re.split(r"\n\s*\n", text) if block.strip()]
    sentences = [sentence for block in blocks for sentence in block]
    if blocks and len(sentences) / len(blocks) >= ARTICLE:
        return blocks
    return [sentences[start : start + PART] for start in range(0, len(sentences), PART)]


def read_documents(source: str | Path, language: str = "en") -> Iterator[list[str]]:
    """Yield the documents of a file, or of all .txt files below a folder, in the order of their names."""
    invalid: Counter[str] = Counter()
    for file in find_files([str(source)], "--text"):
        refuse_extracted(file, "--text")
        yield from split_documents(decode(file.read_bytes(), f"--text {file}", 0, invalid), language)
    report(invalid)


def write_split(documents: Iterable[list[str]], output: str | Path, held_out: float) -> tuple[int, int]:
    """Write train/text.txt and eval/text.txt, holding out evenly spaced documents; return the numbers of documents."""
    parts: tuple[list[str], list[str]] = ([], [])
    owed = 0.0
    for document in documents:
        owed += held_out
        parts[owed >= 1].append("\n".join(document))
        owed -= owed >= 1
    train, evaluation = parts
    if held_out and not evaluation and len(train) > 1:
        evaluation.append(train.pop())
    if not train:
        raise UsageError("--text: no sentence was found")
    for name, part in (("train", train), ("eval", evaluation)):
        target = Path(output) / name / "text.txt"
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as temporary:
            temporary.write_text("\n\n".join(part) + "\n", encoding="utf8")
    return len(train), len(evaluation)


if __name__ == "__main__":
    run_command(main, SplitTextConfig)
