"""Train a WordPiece vocabulary on text.

    python data/train_vocab.py --text corpus/ --vocab_size 8000 --output vocab.txt

The special tokens come first, [PAD] with id 0; the same text always gives the same file.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout without installation

from bert.config import run_command
from bert.prepare.vocabulary import VocabularyConfig, train_vocabulary

if __name__ == "__main__":
    run_command(train_vocabulary, VocabularyConfig)
