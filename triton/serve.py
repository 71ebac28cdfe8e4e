"""Serve a model repository: Triton Inference Server on loopback, and the gateway, the only public port, in front.

    bash triton/serve.sh --model-repository model_repository

`ready: http://127.0.0.1:8080` is printed once a question, a text or a vector has been answered. Ctrl-C or SIGTERM ends
both; SIGHUP loads new versions of the models. A server that dies or falls silent is started again.
"""

import os
import re
import secrets
import signal
import sys
import threading
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # runs from a checkout without installation

from bert.config import flag, run_command, to_dict
from bert.errors import UsageError
from bert.serve.limits import Limits
from bert.serve.server import ServerConfig, TritonServer, check_port, child

ADMIN_KEY = "BERT_SERVE_ADMIN_KEY"


@dataclass
class Config:
    host: str = flag("127.0.0.1", "Address of the gateway; 0.0.0.0 = all of this machine's.")
    port: int = flag(8080, "Port of the gateway.", minimum=1, maximum=65535)
    gateway: bool = flag(True, f"Start the gateway. Without it {ADMIN_KEY} holds the key that its own has.")
    limits: Limits = field(default_factory=Limits)
    server: ServerConfig = field(default_factory=ServerConfig)  # type: ignore[arg-type]


def main(config: Config) -> None:
    """Run the command."""
    if config.gateway:
        check_port("port", config.port, config.host)
    key = secrets.token_urlsafe(24) if config.gateway else given_key()
    ended, reload = threading.Event(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    signal.signal(signal.SIGHUP, lambda *_: reload.set())
    with TritonServer(config.server, key, lambda text: print(text, flush=True)) as triton:
        triton.start()
        environment = {**os.environ, ADMIN_KEY: key}
        started = child(gateway_command(config), env=environment) if config.gateway else nullcontext()
        with started as gateway:
            code = None
            while code is None and not ended.wait(0.5):
                triton.revive()
                if reload.is_set():
                    reload.clear()
                    triton.reload()
                code = gateway.poll() if gateway else None
    sys.exit(code or 0)


def given_key() -> str:
    """Return the key of the environment, which the gateway has, too."""
    key = os.environ.get(ADMIN_KEY, "")
    if not re.fullmatch(r"[\w-]{16,}", key):
        raise UsageError(f"--gateway=false: expected a key in {ADMIN_KEY}, at least 16 letters, digits, - or _")
    return key


def gateway_command(config: Config) -> list[str]:
    """Return the command that starts the gateway."""
    command = [sys.executable, str(ROOT / "triton" / "gateway.py"), "--host", config.host, "--port", str(config.port)]
    command += ["--triton", f"127.0.0.1:{config.server.grpc_port}"]
    command += ["--metrics_url", f"http://127.0.0.1:{config.server.metrics_port}/metrics"]
    for name, value in to_dict(config.limits).items():
        if value is not None:
            command += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return command


if __name__ == "__main__":
    run_command(main, Config)
