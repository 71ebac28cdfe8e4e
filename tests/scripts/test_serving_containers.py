"""triton/docker.sh and compose.yml: what is refused, what would run, and what the containers may do."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
TRITON = ROOT / "triton"
COMPOSE = yaml.safe_load((TRITON / "compose.yml").read_text())
ABSENT = "docker is not installed"


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "my models"
    for name in ("bert", "bert_qa"):
        (folder / name / "1").mkdir(parents=True)
        (folder / name / "config.pbtxt").write_text("")
    return folder


@pytest.fixture
def tools(tmp_path):
    """A PATH without docker."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in (
        "base64",
        "bash",
        "cat",
        "dirname",
        "env",
        "find",
        "grep",
        "head",
        "realpath",
        "sed",
        "sleep",
        "sort",
        "tr",
    ):
        (folder / name).symlink_to(shutil.which(name))
    return folder


def script(*words: str, path: Path | str = "/usr/bin:/bin", **variables: str) -> subprocess.CompletedProcess:
    command = ["/bin/bash", str(TRITON / "docker.sh"), *words]
    return subprocess.run(command, env={"PATH": str(path), **variables}, capture_output=True, text=True, timeout=60)


def refusal(*words: str, **options) -> str:
    done = script(*words, **options)
    assert (done.returncode, done.stdout) == (2, ""), done
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_a_dry_run_shows_values_and_command(repository):
    done = script(
        "--model_repository", str(repository), "--port=8081", "--allowed-host", "bert.example.org", "--dry-run"
    )
    assert done.returncode == 0, done.stderr
    *values, command = done.stdout.splitlines()
    assert dict(each.split("=", 1) for each in values) == {
        "MODEL_REPOSITORY": str(repository),
        "BERT_SERVE_HOST": "127.0.0.1",
        "BERT_SERVE_PORT": "8081",
        "BERT_SERVE_ALLOWED_HOST": "bert.example.org",
        "BERT_SERVE_RATE": "100",
    }
    assert shlex.split(command)[:4] == ["docker", "compose", "--file", str(TRITON / "compose.yml")]
    assert shlex.split(command)[4] == "up"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--port", "0"], "--port 0: expected 1 to 65535"),
        (["--port", "70000"], "--port 70000: expected 1 to 65535"),
        (["--port", "$(id)"], "--port $(id): expected 1 to 65535"),
        (["--host", "localhost"], "--host localhost: expected an IPv4 address"),
        (["--allowed-host", "a.example:8080"], "--allowed-host a.example:8080: expected a host name without a port"),
        (["--rate", "many"], "--rate many: expected a number from 0"),
        (["--cache-mb", "1"], "--cache-mb: unknown option; --help lists them"),
        (["--port"], "--port: expected a value after it"),
        (["now"], "now: unknown word"),
    ],
)
def test_wrong_values_are_refused(repository, words, message):
    assert message in refusal("--model-repository", str(repository), *words)


def test_a_repository_is_needed(tmp_path):
    assert "--model-repository: expected the folder" in refusal()
    assert f"--model-repository {tmp_path}: holds no model" in refusal("--model-repository", str(tmp_path))


@pytest.mark.skipif(os.getuid() == 1000, reason="the files are user 1000's own")
def test_a_repository_that_the_container_cannot_read_is_refused(repository):
    closed = repository / "bert" / "config.pbtxt"
    closed.chmod(0o600)
    assert f"user 1000 cannot read {closed}" in refusal("--model-repository", str(repository))


def test_without_docker_one_line_says_so(repository, tools):
    assert ABSENT in refusal("--model-repository", str(repository), path=tools)


DOCKER = """#!{python}
import os, signal, sys, time
words = sys.argv[1:]
with open("{calls}", "a") as file:
    print(*words[3:] if words[:2] == ["compose", "--file"] else words, file=file)
if "logs" in words:
    time.sleep(60)
if "up" in words:
    with open("{calls}.key", "w") as file:
        file.write(os.environ["BERT_SERVE_ADMIN_KEY"])
    sys.exit({code})
"""


def fake_docker(tools: Path, calls: Path, code: int = 0) -> None:
    (tools / "docker").write_text(DOCKER.format(python=sys.executable, calls=calls, code=code))
    (tools / "docker").chmod(0o755)


@pytest.mark.slow
def test_sighup_reloads_and_sigterm_ends_all(repository, tools, tmp_path):
    calls = tmp_path / "calls"
    fake_docker(tools, calls)
    command = ["/bin/bash", str(TRITON / "docker.sh"), "--model-repository", str(repository), "--port", "8081"]
    process = subprocess.Popen(command, env={"PATH": str(tools)}, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "ready: http://127.0.0.1:8081\n"
        wait_for("logs", calls)
        process.send_signal(1)
        wait_for("kill --signal HUP server", calls)
    finally:
        process.terminate()
    assert process.wait(30) == 0
    assert calls.read_text().splitlines()[-1] == "down --timeout 20"
    assert len(Path(f"{calls}.key").read_text()) == 32


@pytest.mark.slow
def test_containers_that_do_not_start_are_removed(repository, tools, tmp_path):
    fake_docker(tools, tmp_path / "calls", code=1)
    (tools / "docker").write_text((tools / "docker").read_text().replace("time.sleep(60)", "pass"))
    assert "the containers did not start" in refusal("--model-repository", str(repository), path=tools)
    assert (tmp_path / "calls").read_text().splitlines()[-1] == "down --timeout 20"


def wait_for(call: str, calls: Path) -> None:
    command = f'until grep -q "^{call}" {shlex.quote(str(calls))}; do sleep 0.1; done'
    subprocess.run(["bash", "-c", command], check=True, timeout=30)


# ---- compose.yml


def test_only_the_gateway_has_a_public_port_and_that_on_loopback():
    services = COMPOSE["services"]
    assert {name for name, each in services.items() if "ports" in each} == {"gateway"}
    assert services["gateway"]["ports"] == ["${BERT_SERVE_HOST:-127.0.0.1}:${BERT_SERVE_PORT:-8080}:8080"]
    assert services["server"]["networks"] == ["inner"]
    assert COMPOSE["networks"]["inner"] == {"internal": True}
    assert not any("network_mode" in each or "expose" in each for each in services.values())


@pytest.mark.parametrize("name", ["server", "gateway"])
def test_containers_have_no_rights(name):
    service = COMPOSE["services"][name]
    assert service["user"] == "1000:1000"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "pid", "ipc"} & set(service)
    assert all(volume["read_only"] for volume in service.get("volumes", []))
    assert service["restart"] == "unless-stopped"


def test_both_containers_have_the_same_key_and_none_is_written_down():
    for service in COMPOSE["services"].values():
        assert service["environment"]["BERT_SERVE_ADMIN_KEY"].startswith("${BERT_SERVE_ADMIN_KEY:?")


def test_the_images_are_targets_of_the_dockerfile():
    text = (TRITON / "Dockerfile").read_text()
    for name, service in COMPOSE["services"].items():
        assert service["build"]["target"] == name
        assert f" AS {name}\n" in text
        assert all(f"ARG {argument}" in text for argument in service["build"]["args"])
    assert text.count("USER 1000:1000") == 2
