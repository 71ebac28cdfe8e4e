"""Run Triton Inference Server: start it safely, restart it, end it.

Triton listens on loopback alone, its administration is closed to all who lack a key that is drawn at each start, and it
does not run as root. The gateway in front is the only public port::

    with TritonServer(config, key) as server:
        server.start()
        ...
        server.revive()                 # call often: starts it anew if it has died or no longer answers
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bert.config import flag
from bert.errors import UsageError
from bert.serve.wheel import Wheel

RESTRICTED = "model-repository,shared-memory,model-config,trace,logging,statistics"
ANSWER_SECONDS = 5.0  # a server that gives no sign of life for so long is started anew
STOP_SECONDS = 10
# Triton 2.51 never ends the other processes of a model that it reloads because one of them has died.
SPARE_PROCESSES = 4


@dataclass
class ServerConfig:
    """Where Triton runs."""

    model_repository: str = flag(help="Folder that triton/export.py wrote.")
    http_port: int = flag(8000, "Triton's HTTP port, on loopback.", minimum=1, maximum=65535)
    grpc_port: int = flag(8001, "Triton's gRPC port, on loopback.", minimum=1, maximum=65535)
    metrics_port: int = flag(8002, "Triton's port for Prometheus, on loopback.", minimum=1, maximum=65535)
    all_addresses: bool = flag(False, "Let Triton listen on all addresses, for a gateway in another container.")
    cache_mb: int = flag(256, "Megabytes of answers to keep for equal requests; 0 = none.", minimum=0)
    user: str = flag("nobody", "If started by root: the user that the servers run as.")
    allow_root: bool = flag(False, "Run as root all the same.")
    verbose: bool = flag(False, "Show Triton's log; otherwise only the errors of a server that cannot start.")


def check_repository(path: str) -> Path:
    """Return the repository; raises UsageError if it holds no model, or a link to something outside."""
    root = Path(path).resolve()
    if not any(root.glob("*/config.pbtxt")):
        raise UsageError(f"--model_repository {path}: holds no model; triton/export.py writes one")
    for file in root.rglob("*"):
        if file.is_symlink() and not file.resolve().is_relative_to(root):
            raise UsageError(f"--model_repository {path}: {file} is a link to {file.resolve()}, outside the repository")
    return root


def check_port(name: str, port: int, host: str = "127.0.0.1") -> None:
    """Raise UsageError if a port is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UsageError(f"--{name} {port}: {(error.strerror or str(error)).lower()}; choose another") from error


def unprivileged(config: ServerConfig, *needed: Path) -> dict[str, Any]:
    """Return the options of subprocess.Popen that drop root's rights; raises UsageError where that cannot work."""
    if os.geteuid() != 0 or config.allow_root:
        return {}
    try:
        user = pwd.getpwnam(config.user)
    except KeyError as error:
        raise UsageError(f"--user {config.user}: no such user") from error
    options = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    for path in needed:
        if subprocess.run(["/usr/bin/test", "-r", path], **options, check=False).returncode:
            raise UsageError(
                f"--user {config.user}: cannot read {path}; start serve.sh as an ordinary user, or use --allow_root"
            )
    return options


def die_with_parent() -> None:
    """Ask Linux to end this process when the one that started it dies, however it dies."""
    with contextlib.suppress(OSError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


class TritonServer:
    """A Triton process for one model repository, started anew where needed."""

    def __init__(self, config: ServerConfig, key: str, notice: Callable[[str], None] = print) -> None:
        self._wheel = Wheel.find()
        self._repository = check_repository(config.model_repository)
        for name in ("http_port", "grpc_port", "metrics_port"):
            check_port(name, getattr(config, name))
        self._rights = unprivileged(config, self._repository, self._wheel.binary, Path(sys.executable))
        self._config, self._key, self._notice = config, key, notice
        self._process: Any = None
        self._heard = 0.0  # when the server last answered
        self._loading = True  # until the first answer
        self._usual = 0  # its processes when it first answered; 0 = it has not

    def __enter__(self) -> TritonServer:
        """Make the server's own folder, from which it runs: a folder `triton` beside it would hide the compiler."""
        self._folder = Path(tempfile.mkdtemp(prefix="bert-serve-"))
        self._prefix = f"{self._folder.name}-"
        shutil.copytree(self._wheel.backends / "python", self._folder / "backends" / "python")
        shutil.copy(self._wheel.stub, self._folder / "backends" / "python")
        (self._folder / "empty").mkdir()
        self._folder.chmod(0o755)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def pid(self) -> int:
        """The server's process."""
        assert self._process is not None
        return self._process.pid

    def models(self) -> list[str]:
        """Return the models of the repository, engines first."""
        return sorted((path.parent.name for path in self._repository.glob("*/config.pbtxt")), key=_front_last)

    def command(self) -> list[str]:
        """Return the command that starts the server."""
        config, address = self._config, "0.0.0.0" if self._config.all_addresses else "127.0.0.1"
        options = {
            "model-repository": self._repository,
            "backend-directory": self._folder / "backends",
            "model-control-mode": "explicit",
            "http-address": address,
            "http-port": config.http_port,
            "grpc-address": address,
            "grpc-port": config.grpc_port,
            "metrics-address": address,
            "metrics-port": config.metrics_port,
            "allow-gpu-metrics": "false",
            "exit-timeout-secs": STOP_SECONDS - 2,
            "http-restricted-api": f"{RESTRICTED}:admin-key={self._key}",
            "grpc-restricted-protocol": f"{RESTRICTED}:admin-key={self._key}",
            "log-info": str(config.verbose).lower(),
        }
        several = ["python,shm-default-byte-size=4194304", f"python,shm-region-prefix-name={self._prefix}"]
        cache = [f"--cache-directory={self._wheel.caches}", f"--cache-config=local,size={config.cache_mb << 20}"]
        return [
            str(self._wheel.binary),
            "--disable-auto-complete-config",
            *(f"--load-model={name}" for name in self.models()),  # "*" fails for any other folder, such as lost+found
            *(f"--{name}={value}" for name, value in options.items()),
            *(f"--backend-config={value}" for value in several),
            *(cache if config.cache_mb else []),
        ]

    def start(self) -> None:
        """Start the server and return at once; its models load meanwhile."""
        found = os.environ.get("LD_LIBRARY_PATH")  # CUDA's, in an image
        libraries = [*self._wheel.libraries, *([found] if found else [])]
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        environment = {
            **os.environ,
            "LD_LIBRARY_PATH": os.pathsep.join(libraries),
            "PATH": path,
            "HOME": "/nonexistent",
        }
        environment["OMP_NUM_THREADS"] = "1"  # an engine sets its own number
        self._process = subprocess.Popen(
            self.command(),
            cwd=self._folder / "empty",
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=None if self._config.verbose else (self._folder / "errors.log").open("ab"),
            start_new_session=True,
            preexec_fn=die_with_parent,
            **self._rights,
        )
        self._heard = time.monotonic()
        self._loading = True

    def revive(self) -> None:
        """Start the server again if it is in trouble; raises UsageError if it has never answered."""
        trouble = self._trouble()
        if trouble is None:
            return
        if not self._usual:
            for line in self._errors():
                print(line, file=sys.stderr)
            raise UsageError(f"--model_repository {self._repository}: {trouble} before it could load the models")
        self._notice(f"{trouble}: starting it again")
        self.stop(patience=0)
        self.start()

    def _errors(self) -> list[str]:
        """Return the errors that the server has logged, without what it says on every machine without a GPU."""
        log = self._folder / "errors.log"
        lines = log.read_text(encoding="utf8", errors="replace").splitlines() if log.exists() else []
        return [line for line in lines if line.startswith(("E", "error")) and "CudaDriverHelper" not in line][-5:]

    def _trouble(self) -> str | None:
        """Say what is wrong with the server, if anything is."""
        if self._process.poll() is not None:
            return f"Triton has died (exit code {self._process.returncode})"
        now = time.monotonic()
        if self._answers():
            self._usual, self._loading = self._usual or self._processes(), False
            self._heard = now
            left_behind = self._processes() > self._usual + SPARE_PROCESSES
            return "Triton has processes of models that died" if left_behind else None
        return "Triton is silent" if not self._loading and now - self._heard > ANSWER_SECONDS else None

    def _processes(self) -> int:
        """Count the processes of the server's session."""
        count = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):  # one that has ended meanwhile
                count += int(stat.read_text().rpartition(")")[2].split()[3]) == self._process.pid
        return count

    def _answers(self) -> bool:
        try:
            url = f"http://127.0.0.1:{self._config.http_port}/v2/health/live"
            with urllib.request.urlopen(url, timeout=1) as reply:
                return reply.status == 200
        except (OSError, urllib.error.URLError):
            return False

    def reload(self) -> None:
        """Load every model of the repository again, engines first, so that new versions are served."""
        for name in self.models():
            url = f"http://127.0.0.1:{self._config.http_port}/v2/repository/models/{name}/load"
            request = urllib.request.Request(url, b"{}", {"admin-key": self._key, "Content-Type": "application/json"})
            try:
                urllib.request.urlopen(request, timeout=120).close()
                self._notice(f"loaded {name}")
            except OSError as error:
                self._notice(f"{name} could not be loaded and is served as before: {error}")

    def stop(self, patience: float = STOP_SECONDS) -> None:
        """End the server and what it started; calls in flight have ``patience`` seconds."""
        if self._process is None:
            return
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(patience)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for region in Path("/dev/shm").glob(f"{self._prefix}*"):
            region.unlink(missing_ok=True)
        self._process = None


def _front_last(name: str) -> tuple[bool, str]:
    return name in ("bert_qa", "bert_classifier", "bert_embed", "bert_multitask"), name


@contextlib.contextmanager
def child(command: list[str], **options: Any) -> Iterator[Any]:
    """Run a process that ends with the block, or with this process."""
    process = subprocess.Popen(command, preexec_fn=die_with_parent, **options)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
