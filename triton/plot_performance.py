"""Draw throughput and latency against the load, from CSV files of run_performance_on_triton.py.

python triton/plot_performance.py --results static.csv dynamic.csv --output performance.png
"""

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from bert.config import flag, run_command
from bert.deployment.perf import draw, read_rows


@dataclass
class Config:
    results: list[str] = flag(help="CSV files.")
    output: str = flag(help="Image to write, such as performance.png.")


def main(config: Config) -> None:
    draw({Path(each).stem: read_rows(Path(each)) for each in config.results}, Path(config.output))


if __name__ == "__main__":
    run_command(main, Config)
