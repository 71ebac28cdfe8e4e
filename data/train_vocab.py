"""Train a WordPiece vocabulary on text.

    python data/train_vocab.py --text corpus/ --vocab_size 8000 --output vocab.txt

The special tokens come first, [PAD] as id 0; the same text always gives the same file.
"""

import sys
from pathlib import Path

# Run by path, a script sees its own folder and not the package beside it.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bert.config import run_command
from bert.prepare.vocabulary import VocabularyConfig, train_vocabulary


def main(config: VocabularyConfig) -> None:
    """Run the command."""
    train_vocabulary(config)


if __name__ == "__main__":
    run_command(main, VocabularyConfig)
