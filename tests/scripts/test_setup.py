"""scripts/setup.sh: what it says of its words, before anything is made or installed."""

import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = list(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])


def setup(tmp_path: Path, *words: str) -> subprocess.CompletedProcess:
    done = subprocess.run(
        ["bash", str(ROOT / "scripts" / "setup.sh"), *words],
        env={"PATH": "/usr/bin:/bin", "VENV": str(tmp_path / "venv")},
        capture_output=True,
        text=True,
    )
    assert not (tmp_path / "venv").exists()
    return done


def test_help_names_every_extra(tmp_path):
    done = setup(tmp_path, "--help")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == f"extras: {' '.join(EXTRAS)}"


def test_an_unknown_extra_is_refused(tmp_path):
    done = setup(tmp_path, "report", "reports")
    assert done.returncode == 2
    assert done.stderr == f"error: reports: unknown extra, expected some of: {' '.join(EXTRAS)}\n"
