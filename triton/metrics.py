"""Ask a running server every question of a SQuAD file, score the answers, and compare them with the checkpoint's.

    python triton/metrics.py --predict_file dev-v1.1.json
    python triton/metrics.py --predict_file dev-v1.1.json --checkpoint results/SQuAD/pytorch_model.bin --expect_equal

Give the lengths that the model was exported with, too. For calculate_metrics.py this file holds MetricsCalculator.
"""

import asyncio
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from bert.config import run_command
from bert.deployment.questions import MetricsCalculator  # noqa: F401  # for --metrics triton/metrics.py

try:
    from bert.client.score import ScoreConfig, compare, differing, render
except ModuleNotFoundError as missing:
    print(f"error: {missing.name} is not installed: run `bash triton/setup.sh`", file=sys.stderr)
    sys.exit(2)


def main(config: ScoreConfig) -> None:
    rows = asyncio.run(compare(config))
    print(render(rows))
    if config.expect_equal and differing(rows):
        sys.exit(1)


if __name__ == "__main__":
    run_command(main, ScoreConfig)
