"""Starting Triton: what is refused before, how closed its command line is, and what ends and restarts it."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

httpx = pytest.importorskip("httpx")

from serve.conftest import save_model  # pyright: ignore[reportMissingImports]
from serve.real_triton import free_ports, is_installed  # pyright: ignore[reportMissingImports]

from bert.errors import UsageError
from bert.serve.repository import ExportConfig, export
from bert.serve.server import ServerConfig, check_port, check_repository, unprivileged
from bert.serve.tasks import ServedConfig

ROOT = Path(__file__).parents[2]


def make_repository(folder: Path) -> Path:
    (folder / "bert" / "1").mkdir(parents=True)
    (folder / "bert" / "config.pbtxt").write_text('name: "bert"')
    (folder / "bert" / "1" / "model.py").write_text("")
    return folder


def test_a_repository(tmp_path):
    repository = make_repository(tmp_path / "models")
    (repository / "bert" / "2").symlink_to(repository / "bert" / "1")  # inside
    assert check_repository(str(repository)) == repository


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(UsageError, match="holds no model"):
        check_repository(str(tmp_path))


@pytest.mark.parametrize("link", ["bert/2", "bert/1/weights", "other"])
def test_a_link_out_of_the_repository(tmp_path, link):
    repository = make_repository(tmp_path / "models")
    (tmp_path / "secret").mkdir()
    (repository / link).symlink_to(tmp_path / "secret")
    with pytest.raises(UsageError, match=re.escape(f"is a link to {tmp_path / 'secret'}, outside the repository")):
        check_repository(str(repository))


def test_a_port_that_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"--http_port {port}: address already in use"):
            check_port("http_port", port)
    check_port("http_port", port)


def test_an_ordinary_user_keeps_its_rights(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert unprivileged(ServerConfig(str(tmp_path)), tmp_path) == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can drop rights")
def test_root_becomes_nobody_or_is_told_why_not(tmp_path):
    readable = Path("/etc/passwd")
    options = unprivileged(ServerConfig(str(tmp_path)), readable)
    told = subprocess.run(["id", "-u", "-n"], capture_output=True, text=True, **options)
    assert told.stdout.strip() == "nobody"
    hidden = tmp_path / "hidden"
    hidden.mkdir(mode=0o700)
    with pytest.raises(UsageError, match=f"--user nobody: cannot read {hidden}"):
        unprivileged(ServerConfig(str(tmp_path)), hidden)
    with pytest.raises(UsageError, match="--user no-such-user: no such user"):
        unprivileged(ServerConfig(str(tmp_path), user="no-such-user"), readable)
    assert unprivileged(ServerConfig(str(tmp_path), allow_root=True), hidden) == {}


class Serving:
    """``triton/serve.py`` on free ports."""

    def __init__(self, repository: Path) -> None:
        self.port, self.http, grpc, metrics = free_ports(4)
        ports = ["--http_port", self.http, "--grpc_port", grpc, "--metrics_port", metrics, "--port", self.port]
        command = [sys.executable, ROOT / "triton" / "serve.py", "--model_repository", repository, "--allow_root"]
        self.process = subprocess.Popen(
            [*map(str, [*command, *ports])], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.wait_for("ready: ")

    def wait_for(self, start: str) -> None:
        assert self.process.stdout is not None
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if line.startswith(start):
                return
        raise AssertionError("".join(lines))

    def ask(self) -> int:
        body = {"question": "river stone?", "context": "the river walks under the green stone"}
        return httpx.post(f"http://127.0.0.1:{self.port}/v1/answer", json=body, timeout=20, trust_env=False).status_code

    def children(self) -> dict[int, str]:
        listed = subprocess.run(["ps", "-ww", "-e", "-o", "pid=,ppid=,args="], capture_output=True, text=True).stdout
        rows = [line.split(None, 2) for line in listed.splitlines()]
        return {int(pid): args for pid, parent, args in rows if int(parent) == self.process.pid}


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *["river", "stone", "green", "walks", "under", "the", "?"]]
    (folder / "vocab.txt").write_text("\n".join(words))
    path = save_model(folder / "qa.bin", folder / "vocab.txt", "qa")
    served = ServedConfig(str(path), "qa", max_seq_length=64, max_query_length=16)
    export(ExportConfig(str(folder / "models"), served=served), lambda _: None)
    return folder / "models"


@pytest.mark.slow
@pytest.mark.server
@pytest.mark.skipif(not is_installed(), reason="the package nvidia-pytriton is not installed")
def test_a_killed_server_comes_back_and_sigterm_ends_everything(repository):
    serving = Serving(repository)
    try:
        assert serving.ask() == 200
        index = httpx.post(f"http://127.0.0.1:{serving.http}/v2/repository/index", json={}, trust_env=False)
        assert (index.status_code, "restricted" in index.text) == (403, True)
        (triton,) = [pid for pid, args in serving.children().items() if "tritonserver" in args]
        os.kill(triton, signal.SIGKILL)
        serving.wait_for("Triton has died")
        until = time.monotonic() + 30
        while serving.ask() != 200 and time.monotonic() < until:
            time.sleep(0.2)
        assert serving.ask() == 200
        children = serving.children()
        assert len(children) == 2
        regions = {path.name for path in Path("/dev/shm").glob("bert-serve-*")}
        serving.process.terminate()
        assert serving.process.wait(30) == 0
        assert not any(Path(f"/proc/{pid}").exists() for pid in children)
        left = {path.name for path in Path("/dev/shm").glob("bert-serve-*")}
        assert regions - left  # its own are gone; others may be of servers beside it
    finally:
        serving.process.kill()
        serving.process.wait()
