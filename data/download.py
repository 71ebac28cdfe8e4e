"""Fetch data sets: SQuAD, GLUE, XNLI, Wikipedia, Google's pre-trained weights and their vocabulary.

    python data/download.py --dataset squad glue uncased_L-24_H-1024_A-16 --output data
    python data/download.py --dataset wikipedia --wikipedia_language de --mirror https://mirror.company.org/bert

Interrupted downloads resume, files are verified, and files that are already there are kept. If one cannot be fetched,
the others still are, and the exit code is 1. The environment variables http_proxy, https_proxy and no_proxy apply.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout without installation

from bert.config import run_command
from bert.download.datasets import DownloadConfig, download


def main(config: DownloadConfig) -> None:
    """Run the command."""
    download(config)


if __name__ == "__main__":
    run_command(main, DownloadConfig)
