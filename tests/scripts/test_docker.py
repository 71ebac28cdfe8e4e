"""build.sh and launch.sh: the commands that they would run, what they refuse, and the image's versions."""

import importlib.util
import os
import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SPEC = importlib.util.spec_from_file_location("constraints", ROOT / "scripts/docker/constraints.py")
constraints = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(constraints)


def script(name: str, *words: str, engine: str = "docker") -> subprocess.CompletedProcess:
    command = ["bash", str(ROOT / "scripts/docker" / name), *words]
    environment = {"PATH": "/usr/bin:/bin", "CONTAINER_ENGINE": engine}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def planned(name: str, *words: str, engine: str = "docker") -> list[str]:
    done = script(name, "--dry-run", *words, engine=engine)
    assert done.returncode == 0, done.stderr
    return shlex.split(done.stdout)


def refusal(name: str, *words: str, engine: str = "docker") -> str:
    done = script(name, "--dry-run", *words, engine=engine)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_build():
    assert planned("build.sh") == ["docker", "build", "--tag", "bert", "--file", f"{ROOT}/Dockerfile", str(ROOT)]
    words = planned("build.sh", "--base", "python:3.11-slim", "--tag=bert:mine", "--", "--no-cache", engine="podman")
    assert words[:4] == ["podman", "build", "--tag", "bert:mine"]
    assert words[-6:] == [
        "--format",
        "docker",
        "--build-arg",
        "FROM_IMAGE_NAME=python:3.11-slim",
        "--no-cache",
        str(ROOT),
    ]


def test_launch_mounts_the_callers_directories_and_files_stay_the_callers(tmp_path):
    data, results = tmp_path / "my data", tmp_path / "my results"
    data.mkdir()
    words = planned("launch.sh", "--data", str(data), "--results", str(results), "python", "a b.py", "--gpus", "7")
    assert words[-5:] == ["bert", "python", "a b.py", "--gpus", "7"]  # the command's words are its own
    mounts = [words[index + 1] for index, word in enumerate(words) if word == "--mount"]
    assert mounts == [
        f"type=bind,source={data},target=/data",
        f"type=bind,source={results},target=/workspace/bert/results",
    ]
    assert words[words.index("--user") + 1] == f"{os.getuid()}:{os.getgid()}"
    assert words[words.index("--ipc") + 1] == "host"
    assert not results.exists()  # in a dry run


@pytest.mark.parametrize(
    ("engine", "gpus", "expected"),
    [
        ("docker", "none", []),
        ("docker", "all", ["--gpus", "all"]),
        ("docker", "0,1", ["--gpus", '"device=0,1"']),  # docker reads it as a line of CSV, hence the quotes
        ("podman", "all", ["--device", "nvidia.com/gpu=all"]),
        ("podman", "0,1", ["--device", "nvidia.com/gpu=0", "--device", "nvidia.com/gpu=1"]),
    ],
)
def test_launch_gives_gpus(engine, gpus, expected):
    words = planned("launch.sh", "--gpus", gpus, engine=engine)
    first = words.index("host", words.index("--ipc")) + 1
    assert words[first : words.index("--mount")] == expected


def test_launch_with_its_own_shared_memory():
    words = planned("launch.sh", "--shm-size", "8g")
    assert words[words.index("--shm-size") + 1] == "8g"
    assert "--ipc" not in words


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--gpus", "first"], "--gpus first: expected all, none or numbers"),
        (["--shm-size=big"], "--shm-size big: expected a size such as 8g"),
        (["--data", "/no/such"], "--data /no/such: no such directory"),
        (["--results", "/tmp/a,b"], "/tmp/a,b: a mount cannot have a comma"),
        (["--date", "/tmp"], "--date: unknown option; --help lists them"),
        (["--tag"], "--tag: expected a value after it"),
    ],
)
def test_launch_refuses(words, message):
    assert message in refusal("launch.sh", *words)


def test_another_engine_is_refused():
    assert "CONTAINER_ENGINE=rkt: expected one of: docker podman" in refusal("launch.sh", engine="rkt")
    assert "CONTAINER_ENGINE=rkt: expected one of: docker podman buildah" in refusal("build.sh", engine="rkt")


def test_help_is_the_head_of_the_script():
    for name in ("build.sh", "launch.sh"):
        done = script(name, "--help")
        assert done.returncode == 0 and f"bash scripts/docker/{name}" in done.stdout


def test_what_an_image_has_stays_and_the_rest_is_as_tested():
    tested = "# versions\nnumpy==2.4.6\ntorch==2.13.0\nTyping_Extensions==4.16.0\n"
    installed = {"torch": "2.11.0a0+nv26.1", "apex": "0.1", "setuptools": "66.1", "typing-extensions": "4.12"}
    assert constraints.merged(tested, installed) == [
        "apex==0.1",
        "numpy==2.4.6",
        "torch==2.11.0a0+nv26.1",
        "typing-extensions==4.12",
    ]
    assert constraints.normalized("Typing_Extensions") == "typing-extensions"
