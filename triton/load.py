"""Send many requests of mixed lengths to the gateway and count what becomes of them.

    python triton/load.py --requests 1000 --concurrency 32
    python triton/load.py --requests 500 --hostile --predict_file dev-v1.1.json

It exits with 1 if a request is neither answered nor refused with a reason. The gateway's --rate may refuse some.
"""

import asyncio
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from bert.config import run_command

try:
    from bert.client.load import LoadConfig, run_load
except ModuleNotFoundError as missing:
    print(f"error: {missing.name} is not installed: run `bash triton/setup.sh`", file=sys.stderr)
    sys.exit(2)


def main(config: LoadConfig) -> None:
    counts = asyncio.run(run_load(config))
    print(counts.report())
    if not counts.healthy:
        sys.exit(1)


if __name__ == "__main__":
    run_command(main, LoadConfig)
