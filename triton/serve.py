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
sys.path[0] = str(ROOT)

from bert.config import run_command, to_dict

try:
    from bert.gateway.limits import Limits
    from bert.gateway.listen import ListenConfig
    from bert.gateway.watchdog import WatchdogConfig
    from bert.serve.server import ServerConfig, TritonServer, check_port, child
except ModuleNotFoundError as missing:
    print(f"error: {missing.name} is not installed: run `bash triton/setup.sh`", file=sys.stderr)
    sys.exit(2)


@dataclass
class Config:
    server: ServerConfig = field(default_factory=ServerConfig)  # type: ignore[arg-type]  # its flags are required
    listen: ListenConfig = field(default_factory=ListenConfig)
    limits: Limits = field(default_factory=Limits)
    watchdog: WatchdogConfig = field(default_factory=WatchdogConfig)


def main(config: Config) -> None:
    """Run the command."""
    check_port("port", config.listen.port, config.listen.host)
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
    command = [sys.executable, str(ROOT / "triton" / "gateway.py"), "--triton", f"127.0.0.1:{config.server.grpc_port}"]
    command += ["--metrics_url", f"http://127.0.0.1:{config.server.metrics_port}/metrics"]
    for part in (config.listen, config.limits, config.watchdog):
        for name, value in to_dict(part).items():
            if value is not None:
                command += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return command


if __name__ == "__main__":
    run_command(main, Config)
