"""Serve a model repository: Triton Inference Server on loopback, and the gateway, the only public port, in front.

    bash triton/serve.sh --model-repository model_repository

`ready: http://127.0.0.1:8080` is printed once a question, a text or a vector has been answered. Ctrl-C or SIGTERM ends
both; SIGHUP loads new versions of the models. A server that dies or falls silent is started again.
"""

import os
import secrets
import signal
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # runs from a checkout without installation

from bert.config import flag, run_command
from bert.serve.server import ServerConfig, TritonServer, check_port, child


@dataclass
class Config:
    host: str = flag("127.0.0.1", "Address of the gateway; 0.0.0.0 = all of this machine's.")
    port: int = flag(8080, "Port of the gateway.", minimum=1, maximum=65535)
    allowed_host: list[str] | None = flag(None, "Names that browsers may call the gateway by, besides localhost.")
    server: ServerConfig = field(default_factory=ServerConfig)  # type: ignore[arg-type]


def main(config: Config) -> None:
    """Run the command."""
    check_port("port", config.port, config.host)
    key = os.environ.get("BERT_SERVE_ADMIN_KEY") or secrets.token_urlsafe(24)  # perf.sh has to know it
    ended, reload = threading.Event(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    signal.signal(signal.SIGHUP, lambda *_: reload.set())
    with TritonServer(config.server, key, lambda text: print(text, flush=True)) as triton:
        triton.start()
        environment = {**os.environ, "BERT_SERVE_ADMIN_KEY": key}
        with child(gateway_command(config), env=environment) as gateway:
            while gateway.poll() is None and not ended.wait(0.5):
                triton.revive()
                if reload.is_set():
                    reload.clear()
                    triton.reload()
            code = gateway.returncode or 0
    sys.exit(code)


def gateway_command(config: Config) -> list[str]:
    """Return the command that starts the gateway."""
    command = [sys.executable, str(ROOT / "triton" / "gateway.py"), "--host", config.host, "--port", str(config.port)]
    command += ["--triton", f"127.0.0.1:{config.server.grpc_port}"]
    command += ["--metrics_url", f"http://127.0.0.1:{config.server.metrics_port}/metrics"]
    return command + (["--allowed_host", *config.allowed_host] if config.allowed_host else [])


if __name__ == "__main__":
    run_command(main, Config)
