"""Serve a model repository to a gateway in another container: Triton Inference Server alone, closed without the key.

    BERT_SERVE_ADMIN_KEY=... python triton/server.py --model-repository /models --all_addresses

The environment variable holds the key of Triton's restricted APIs, which the gateway has, too. SIGTERM ends the server;
SIGHUP loads new versions of the models. A server that dies or falls silent is started again.
"""

import os
import re
import signal
import sys
import threading
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from bert.config import run_command
from bert.errors import UsageError
from bert.serve.server import ServerConfig, TritonServer


def main(config: ServerConfig) -> None:
    key = os.environ.get("BERT_SERVE_ADMIN_KEY", "")
    if not re.fullmatch(r"[\w-]{16,}", key, re.ASCII):
        raise UsageError("BERT_SERVE_ADMIN_KEY: expected a key of at least 16 letters, digits, - or _")
    ended, reload = threading.Event(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    signal.signal(signal.SIGHUP, lambda *_: reload.set())
    with TritonServer(config, key, lambda text: print(text, flush=True)) as triton:
        triton.start()
        while not ended.wait(0.5):
            triton.revive()
            if reload.is_set():
                reload.clear()
                triton.reload()


if __name__ == "__main__":
    run_command(main, ServerConfig)
