"""Balance shards: the same samples in --num-shards files whose sizes differ by at most one sample.

    python data/balance.py --indir shards_128 --num-shards 4096
    python data/balance.py --indir shards_512 --outdir balanced_512 --num-shards 4096 --keep-orig --lddl-compatible

Every bin of lengths gets that many shards. If the command is killed, either nothing has changed, or running it again
puts the new shards in place.
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
