"""Serve questions, classes and embeddings over HTTP, in front of Triton, with a page to try them on.

    python triton/gateway.py --triton 127.0.0.1:8001 --metrics_url http://127.0.0.1:8002/metrics
    curl http://127.0.0.1:8080/v1/answer --json '{"question": "Who wrote it?", "context": "Ada wrote it in 1843."}'

It prints `ready: URL` once a model has answered, and ends on SIGTERM. Triton itself should listen on 127.0.0.1 only.
The environment variable BERT_SERVE_ADMIN_KEY holds the key of Triton's restricted APIs; with it, models whose process
has died are reloaded.
"""

import asyncio
import logging
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from bert.config import run_command
from bert.errors import UsageError

try:
    from bert.gateway.app import GatewayConfig, build_app
    from bert.gateway.listen import ListenConfig, build_server, open_socket, serve, url_of
    from bert.gateway.watchdog import OK, Watchdog
except ModuleNotFoundError as missing:
    package = (missing.name or "").split(".")[0]
    print(f"error: {package} is not installed: run `bash triton/setup.sh`", file=sys.stderr)
    sys.exit(2)

PAGE = Path(__file__).parent / "page"


@dataclass
class Config:
    listen: ListenConfig = field(default_factory=ListenConfig)
    gateway: GatewayConfig = field(default_factory=GatewayConfig)


def main(config: Config) -> None:
    check_addresses(config.gateway)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    logging.getLogger("gateway").setLevel(logging.INFO)
    opened = open_socket(config.listen)

    async def announce(watchdog: Watchdog) -> None:
        while OK not in watchdog.states.values():
            await asyncio.sleep(0.05)
        print(f"ready: {url_of(opened)}", flush=True)

    serve(build_server(build_app(config.gateway, PAGE, announce), config.listen), opened)


def check_addresses(config: GatewayConfig) -> None:
    if not re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[\w.-]+):\d{1,5}", config.triton):
        raise UsageError(f"--triton {config.triton}: expected HOST:PORT, such as 127.0.0.1:8001")
    if config.metrics_url is not None and not re.match(r"https?://\S+$", config.metrics_url):
        raise UsageError(f"--metrics_url {config.metrics_url}: expected http://HOST:PORT/metrics")


if __name__ == "__main__":
    run_command(main, Config)
