"""Balance shards: the same samples in --num-shards files of one size, give or take one sample.

    python data/balance.py --indir shards_128 --num-shards 4096
    python data/balance.py --indir shards_512 --outdir balanced_512 --num-shards 4096 --keep-orig --lddl-compatible

Every bin of lengths gets that many shards. The folder changes at once: whatever ends the command, the old shards are
all there, or the new ones are once it is run again.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout without installation

from bert.config import run_command
from bert.shards.balance import BalanceConfig, balance


def main(config: BalanceConfig) -> None:
    """Run the command."""
    balance(config)


if __name__ == "__main__":
    run_command(main, BalanceConfig)
