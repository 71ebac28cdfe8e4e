"""Turn a folder of plain text into sentences, a part of the documents held out for evaluation.

python data/split_text.py --text my_texts --output prepared
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from a checkout without installation

from bert.config import run_command
from bert.prepare.text.held_out import TextConfig, read_documents, write_split


def main(config: TextConfig) -> None:
    train, evaluation = write_split(read_documents(config.text, config.language), config.output, config.held_out)
    print(f"{config.output}: {train} documents in train/, {evaluation} in eval/")


if __name__ == "__main__":
    run_command(main, TextConfig)
