"""A real Triton server on free ports: that of the package nvidia-pytriton, which needs no container.

::

    with real_triton(repository, folder) as triton:
        triton.grpc, triton.metrics                     # "127.0.0.1:45011", "http://127.0.0.1:45012/metrics"
        triton.stubs("bert")                            # the ids of its Python processes
"""

import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

KEY = "secret"
RESTRICTED = f"model-repository,shared-memory,model-config,trace,logging,statistics:admin-key={KEY}"
SECONDS = 60.0  # to load the models on a busy machine


def is_installed() -> bool:
    return find_spec("pytriton") is not None and sys.platform == "linux"


@dataclass
class RealTriton:
    process: subprocess.Popen
    http: str
    grpc: str
    metrics: str

    def stubs(self, model: str) -> list[int]:
        """Return the ids of the living processes of ``model``, the oldest first."""
        listed = subprocess.run(
            ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(self.process.pid)], capture_output=True, text=True
        )
        lines = [line.split() for line in listed.stdout.splitlines() if f"/{model}/1/model.py" in line]
        return [int(words[0]) for words in lines]


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def copy_backends(server: Path, folder: Path) -> Path:
    """Put the backends and the stub of this Python version together, as Triton wants them."""
    backends = folder / "backends"
    shutil.copytree(server / "backends", backends)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    shutil.copy(server / "python_backend_stubs" / version / "triton_python_backend_stub", backends / "python")
    return backends


def command_of(server: Path, repository: Path, backends: Path, ports: list[int]) -> list[str]:
    flags = {
        "model-repository": repository,
        "backend-directory": backends,
        "model-control-mode": "explicit",
        "load-model": "*",
        "http-restricted-api": RESTRICTED,
        "grpc-restricted-protocol": RESTRICTED,
        "backend-config": f"python,shm-region-prefix-name=test{os.getpid()}_",
        "allow-gpu-metrics": "false",
        "exit-timeout-secs": 5,
    }
    for name, port in zip(("http", "grpc", "metrics"), ports, strict=True):
        flags |= {f"{name}-address": "127.0.0.1", f"{name}-port": port}
    return [str(server / "bin" / "tritonserver"), *(f"--{name}={value}" for name, value in flags.items())]


@contextmanager
def real_triton(repository: Path, folder: Path, ports: list[int] | None = None) -> Iterator[RealTriton]:
    import pytriton

    server = Path(pytriton.__file__).parent / "tritonserver"
    backends = folder / "backends" if (folder / "backends").exists() else copy_backends(server, folder)
    ports = ports or free_ports(3)
    libraries = f"{sysconfig.get_config_var('LIBDIR')}:{server.parents[1] / 'nvidia_pytriton.libs'}"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with (folder / "triton.log").open("a") as log:
        process = subprocess.Popen(
            command_of(server, repository, backends, ports),
            env=os.environ | {"LD_LIBRARY_PATH": libraries, "PATH": path},
            stdout=log,
            stderr=log,
            cwd=folder,
        )
    try:
        wait_for_port(ports[1], process, folder / "triton.log")
        http, grpc, metrics = (f"127.0.0.1:{port}" for port in ports)
        yield RealTriton(process, http, grpc, f"http://{metrics}/metrics")
    finally:
        process.terminate()
        process.wait(SECONDS)


def wait_for_port(port: int, process: subprocess.Popen, log: Path) -> None:
    """Wait for gRPC, which Triton starts when the models are loaded."""
    end = time.monotonic() + SECONDS
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            assert process.poll() is None and time.monotonic() < end, log.read_text()[-3000:]
            time.sleep(0.1)
