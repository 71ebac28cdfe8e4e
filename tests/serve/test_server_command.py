"""triton/server.py: the key that it shares with the gateway, and where Triton is found."""

import subprocess
import sys
from pathlib import Path

import pytest

from bert.errors import UsageError
from bert.serve import wheel

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("key", [None, "", "short", "with spaces in the key", "a,b:c=abcdefghijklmnop"])
def test_a_missing_or_weak_key_is_refused(key):
    command = [sys.executable, ROOT / "triton" / "server.py", "--model-repository", "m"]
    environment = {} if key is None else {"BERT_SERVE_ADMIN_KEY": key}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("error: BERT_SERVE_ADMIN_KEY: expected a key")
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
    assert found.libraries == [str(tmp_path / "lib")]
    assert found.stub.parent == found.backends / "python"
    found.stub.unlink()
    with pytest.raises(UsageError, match="is missing"):
        wheel.Wheel.find()
