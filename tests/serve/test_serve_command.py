"""triton/serve.py: the gateway's command, the shared key, and where Triton is found."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from bert.config import parse_args
from bert.errors import UsageError
from bert.serve import wheel

ROOT = Path(__file__).parents[2]


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    return runpy.run_path(str(ROOT / "triton" / "serve.py"))


def test_the_gateway_gets_the_limits(serve):
    words = ["--model-repository", "m", "--rate", "0", "--max_list", "3", "--allowed_host", "a.example", "b.example"]
    command = serve["gateway_command"](parse_args(serve["Config"], [*words, "--grpc_port", "9001"]))
    assert command[command.index("--triton") + 1] == "127.0.0.1:9001"
    assert command[command.index("--rate") + 1] == "0.0"
    assert command[command.index("--max_list") + 1] == "3"
    first = command.index("--allowed_host") + 1
    assert command[first : first + 2] == ["a.example", "b.example"]


def test_without_a_gateway_the_environment_holds_the_key(serve, monkeypatch):
    monkeypatch.setenv("BERT_SERVE_ADMIN_KEY", "abcdefgh-1234_XYZ")
    assert serve["given_key"]() == "abcdefgh-1234_XYZ"


@pytest.mark.parametrize("key", [None, "", "short", "with spaces in the key", "a,b:c=abcdefghijklmnop"])
def test_a_missing_or_weak_key_is_refused(key):
    command = [sys.executable, ROOT / "triton" / "serve.py", "--model-repository", "m", "--gateway=false"]
    environment = {} if key is None else {"BERT_SERVE_ADMIN_KEY": key}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("error: --gateway=false: expected a key in BERT_SERVE_ADMIN_KEY")
    assert done.stderr.count("\n") == 1


def test_nvidias_image_is_found_where_there_is_no_wheel(tmp_path, monkeypatch):
    monkeypatch.setattr(wheel, "IMAGE", tmp_path)
    monkeypatch.setattr(wheel.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="not installed"):
        wheel.Wheel.find()
    for name in ("bin/tritonserver", "backends/python/triton_python_backend_stub"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    found = wheel.Wheel.find()
    assert found.binary == tmp_path / "bin" / "tritonserver"
    assert found.libraries == tmp_path / "lib"
    assert found.stub.parent == found.backends / "python"
    found.stub.unlink()
    with pytest.raises(UsageError, match="is missing"):
        wheel.Wheel.find()
