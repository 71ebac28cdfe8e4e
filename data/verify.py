"""Verify that shards are intact, unchanged since they were made, and fit to train on.

    python data/verify.py shards_128 --vocab_file vocab.txt

Checked in every shard: its entry in manifest.json, bytes and SHA-256, columns or tables, number of samples, token ids,
lengths, [CLS] and [SEP], masked positions, and the lengths of its bin. In all together: 35 to 65 % of the next
sentences random, masked tokens within 10 % of what masked_lm_ratio gives, 75 to 85 % of them [MASK] (shares may differ
by another four standard deviations), at most 1 % copies (20 % unmasked), no shard that consists of copies by more than
half, masks static or dynamic but not both, and sizes that differ by at most one sample where shards are balanced.

Exit code 0: all is well. 1: there are problems, one a line. 2: a wrong flag.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout without installation

from bert.config import run_command
from bert.shards.verify import VerifyConfig, verify


def main(config: VerifyConfig) -> None:
    """Run the command."""
    sys.exit(0 if verify(config) else 1)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments and not arguments[0].startswith("-"):
        arguments.insert(0, "--indir")
    run_command(main, VerifyConfig, arguments)
