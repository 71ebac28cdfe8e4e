"""The rules for commands that a test does not run: what must exist, and what must be accepted.

The flags of Python commands are parsed by the script's own parser, in this process. Shell scripts that have --dry-run
run with it in the sandbox. ``...`` in a command stands for flags that the page leaves out. A command that fits no rule
is an error::

    check("python data/download.py --dataset squad", folder)
"""

import contextlib
import io
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import docs_sandbox
import pytest
from docs_pages import ROOT, SCRIPTS, split_words
from torch.distributed import launch as old_launcher
from torch.distributed import run as torchrun

import bert.config

HAVE_DRY_RUN = {
    "scripts/run_pretraining.sh",
    "scripts/run_squad.sh",
    "scripts/run_glue.sh",
    "scripts/run_multi_task.sh",
    "scripts/launch.py",
    "scripts/docker/build.sh",
    "scripts/docker/launch.sh",
    "data/create_datasets_from_start.sh",
    "triton/docker.sh",
}
EXTERNAL = {"apt": "installs system packages, as root"}


def script_of(words: list[str]) -> tuple[str, list[str]]:
    """Return the script, or module, of a Python command and its arguments."""
    start = 2 if words[1] == "-m" else 1
    return words[start], words[start + 1 :]


def check(text: str, folder: Path) -> None:
    """Check a command that does not run; raises AssertionError."""
    parts = [split_words(part) for part in text.split(" && ")]
    if any(word in HAVE_DRY_RUN for _, words in parts for word in words) or "run.sub" in text:
        rehearse(text, folder)
        return
    for _, words in parts:
        assert words[0] in RULES, f"no rule for {words[0]}"
        RULES[words[0]](words[1:])


def rehearse(text: str, folder: Path) -> None:
    """Run a line of shell in the sandbox, so that it starts nothing."""
    line = " && ".join(map(rehearsal_of, text.split(" && ")))
    command = ["bash", "-euc", line]
    done = subprocess.run(command, cwd=folder, env=docs_sandbox.environment(folder), capture_output=True, text=True)
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


def rehearsal_of(part: str) -> str:
    words = set(part.split())
    if {"sbatch", "run.sub"} <= words:
        return for_dry_run(part)
    return f"{part} --dry-run" if HAVE_DRY_RUN & words and not {"--dry-run", "--list"} & words else part


def for_dry_run(text: str) -> str:
    """Turn a line of sbatch into one that shows what the job would do."""
    variables, words = split_words(text)
    assert words[0] == "sbatch" and words[-1] == "run.sub", text
    names = {"-N": "SLURM_JOB_NUM_NODES", "--ntasks-per-node=": "SLURM_NTASKS_PER_NODE"}
    names["--dependency="] = "SLURM_JOB_DEPENDENCY"
    for word in words[1:-1]:
        option = next(option for option in names if word.startswith(option))
        variables[names[option]] = word.removeprefix(option).replace("JOB", "7")
    return " ".join(["DRY_RUN=1", *(f"{name}={value}" for name, value in variables.items()), "bash run.sub"])


def check_python(words: list[str]) -> None:
    if words[0].startswith("triton/"):
        check_serving(*script_of(["python", *words]))
    elif words[:2] == ["-m", "torch.distributed.launch"]:
        check_launcher(old_launcher, words[2:])
    else:
        parse_flags(*script_of(["python", *words]))


def check_serving(script: str, arguments: list[str]) -> None:
    """A command whose packages may be missing here, or whose flags come from files that it is given: names only."""
    assert (ROOT / script).is_file(), f"no {script}"
    for word in arguments:
        if word.startswith("--"):
            name = word.partition("=")[0][2:].replace("-", "_")
            assert name in serving_flags(), f"{script} has no {word}"


def serving_flags() -> set[str]:
    """Return the names of the flags of triton/*.py: fields, parameters and what a parser is given."""
    folders = ("triton", "bert/serve", "bert/gateway", "bert/client", "bert/deployment")
    files = [
        *(file for folder in folders for file in (ROOT / folder).glob("*.py")),
        ROOT / "bert/checkpoint/open_model.py",
    ]
    text = "\n".join(file.read_text() for file in files)
    spelled = r"^    (\w+): .*= flag\(|spellings\(\"(\w+)\"\)|^    (\w+): [^(]*[,=]$|\"--([\w-]+)\""
    return {name.replace("-", "_") for found in re.findall(spelled, text, re.MULTILINE) for name in found if name}


def check_curl(words: list[str]) -> None:
    """A request to the gateway: its path, and the fields of its objects."""
    address, *rest = words
    path = address.removeprefix("http://127.0.0.1:8080")
    if not rest:
        assert f'"{path}"' in (ROOT / "bert/gateway/app.py").read_text() or path == "/openapi.json", f"no {path}"
        return
    flag, body = rest
    assert flag == "--json"
    given = json.loads(body)
    texts = pytest.importorskip("bert.gateway.texts")
    for item in given if isinstance(given, list) else [given]:
        texts.KINDS[path.removeprefix("/v1/")].asked.model_validate(item)


def check_launcher(launcher, words: list[str]) -> None:
    is_whole = any(word.endswith(".py") for word in words)  # otherwise the page shows the options alone
    given = launcher.parse_args([word for word in words if word != "..."] + ["script.py"] * (not is_whole))
    if is_whole:
        check_python([given.training_script, *given.training_script_args, *(["..."] if words[-1] == "..." else [])])


def check_bash(words: list[str]) -> None:
    """A script without --dry-run: its syntax, the options that it names, and --help where it has it."""
    script, *arguments = words
    text = (ROOT / script).read_text()
    subprocess.run(["bash", "-n", script], cwd=ROOT, check=True)
    for word in arguments:
        if word.startswith("--"):
            passed_on = script == "triton/serve.sh" and word[2:].replace("-", "_") in serving_flags()
            assert word in text or passed_on, f"{script} has no {word}"
        elif script == "scripts/setup.sh":
            assert re.search(rf"^{word} = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE), f"no extra {word}"
        elif script == "scripts/test.sh":
            assert (ROOT / word).exists(), f"no {word}"
    if "| --help" in text:
        subprocess.run(["bash", script, "--help"], cwd=ROOT, check=True, capture_output=True)


def check_source(words: list[str]) -> None:
    made = ([".venv/bin/activate"], [".venv/serving/bin/activate"])  # by setup.sh
    assert words in made or (ROOT / words[0]).is_file(), words


def check_pytest(words: list[str]) -> None:
    assert words[:2] == ["-m", "pytest"]
    assert all((ROOT / word).exists() for word in words[2:]), words


def check_pip(words: list[str]) -> None:
    assert words[0] == "install"
    assert all(f'"{package}"' in (ROOT / "pyproject.toml").read_text() for package in words[1:]), words


def check_mpirun(words: list[str]) -> None:
    assert words[0] == "-np"
    assert int(words[1]) >= 1
    assert words[2] in RULES, f"no rule for {words[2]}"
    RULES[words[2]](words[3:])


def check_dask(words: list[str]) -> None:
    cli = {"scheduler": "distributed.cli.dask_scheduler", "worker": "distributed.cli.dask_worker"}[words[0]]
    pytest.importorskip(cli).main.make_context(words[0], words[1:])


def check_entry_point(name: str, words: list[str]) -> None:
    module, _, function = SCRIPTS[name].partition(":")
    imported = __import__(module, fromlist=[function])
    with capturing_flags([name, *words], imported):
        getattr(imported, function)()


RULES = {
    "python": check_python,
    "torchrun": lambda words: check_launcher(torchrun, words),
    "bash": check_bash,
    "source": check_source,
    "curl": check_curl,
    ".venv/serving/bin/python": check_pytest,
    "pip": check_pip,
    "mpirun": check_mpirun,
    "dask": check_dask,
    **{name: lambda words, name=name: check_entry_point(name, words) for name in SCRIPTS},
    **{name: lambda words: None for name in EXTERNAL},
}


@contextlib.contextmanager
def capturing_flags(argv: list[str], *modules):
    """Let ``run_command`` parse the words of ``argv`` and run nothing.

    Where ``...`` is among them, required flags that are missing get a value.
    """
    calls = []

    def parse(main, config_class, argv=None):
        words = [word for word in (sys.argv[1:] if argv is None else argv) if word != "..."]
        calls.append(words)
        while True:
            errors = io.StringIO()
            try:
                with contextlib.redirect_stderr(errors):
                    return bert.config.parse_args(config_class, words)
            except SystemExit as stop:
                missing = re.search(r"arguments are required: ([^(]+) \(", errors.getvalue())
                assert stop.code == 0 or (missing and "..." in sys.argv), errors.getvalue()
                if stop.code == 0:
                    return None
                words += [word for name in missing[1].split(", ") for word in (name.split("/")[0], "1")]

    with pytest.MonkeyPatch.context() as patch:
        for module in (bert.config, *modules):
            patch.setattr(module, "run_command", parse)
        patch.setattr(sys, "argv", argv)
        patch.setattr(sys, "path", [str(ROOT), *sys.path])
        yield
    assert len(calls) == 1, f"{argv[0]} called run_command {len(calls)} times"


def parse_flags(script: str, arguments: list[str]) -> None:
    """Parse as the script would, without running what it does."""
    with capturing_flags([script, *arguments]):
        if script.endswith(".py"):
            assert (ROOT / script).is_file(), f"no {script}"
            runpy.run_path(str(ROOT / script), run_name="__main__")
        else:
            runpy.run_module(script, run_name="__main__", alter_sys=True)
