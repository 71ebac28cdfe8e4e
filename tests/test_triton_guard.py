"""A folder named triton beside the command must not pose as the Triton compiler."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def run(code: str, directory: Path, *paths: Path) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in ``directory`` by an interpreter without site-packages, so that no installed Triton interferes."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, *paths)))}
    return subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=directory, env=environment, capture_output=True, text=True, timeout=60
    )


def test_a_plain_folder_poses_as_triton_without_the_guard(tmp_path):
    (tmp_path / "triton").mkdir()
    result = run("import triton; print(hasattr(triton, 'language'))", tmp_path)
    assert (result.returncode, result.stdout.strip()) == (0, "False")


def test_a_plain_folder_is_not_triton_once_bert_is_imported(tmp_path):
    (tmp_path / "triton").mkdir()
    (tmp_path / "triton" / "client.py").write_text("")
    result = run("import bert\ntry:\n    import triton\nexcept ImportError:\n    print('hidden')", tmp_path)
    assert (result.returncode, result.stdout.strip()) == (0, "hidden"), result.stderr


def test_the_repository_root_itself(tmp_path):
    result = run("import bert\ntry:\n    import triton\nexcept ImportError:\n    print('hidden')", ROOT)
    assert (result.returncode, result.stdout.strip()) == (0, "hidden"), result.stderr


def test_a_real_triton_is_left_alone(tmp_path):
    (tmp_path / "triton").mkdir()
    installed = tmp_path / "site" / "triton"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("language = 'real'")
    result = run("import bert, triton; print(triton.language)", tmp_path, tmp_path / "site")
    assert (result.returncode, result.stdout.strip()) == (0, "real"), result.stderr
