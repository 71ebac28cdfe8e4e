"""A machine to run the scripts of fine-tuning on, with a stand-in for the Python commands."""

import os
import re
import shlex
import subprocess
from pathlib import Path

from test_run_pretraining_sh import SCRIPTS, STAND_IN, VOCAB, Machine, flags  # pyright: ignore[reportMissingImports]


class FineTuningMachine(Machine):
    """Two GPUs, SQuAD 1.1, MRPC and SST-2, a vocabulary and a checkpoint, all where the defaults expect them."""

    def __init__(self, root: Path, script: str):
        super().__init__(root)
        self.script = script
        for name in ("run_squad.py", "run_glue.py", "run_multi_task.py"):
            (self.code / name).write_text(STAND_IN)
        self.checkpoint = self.code / "checkpoints" / "bert_uncased.pt"
        self.squad, self.glue = (self.prepared / "download" / name for name in ("squad", "glue"))
        for directory in (self.checkpoint.parent, self.squad / "v1.1", self.glue / "MRPC", self.glue / "SST-2"):
            directory.mkdir(parents=True)
        self.checkpoint.write_text("")
        for name in ("train", "dev"):
            (self.squad / "v1.1" / f"{name}-v1.1.json").write_text("")

    @property
    def vocab(self) -> Path:
        return self.prepared / VOCAB

    def command(self, *words: str, **environment: str) -> dict:
        """Arguments for subprocess: the script with ``words``."""
        environment = self.environment(**environment)
        return {"args": ["bash", str(SCRIPTS / self.script), *words], "cwd": self.prepared, "env": environment}

    def run(self, *words: str, codedir: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        words = (*words, f"CODEDIR={self.code}") if codedir else words
        return subprocess.run(**self.command(*words, **environment), capture_output=True, text=True, timeout=60)

    def shown(self, *words: str) -> list[str]:
        """The command that a dry run prints."""
        result = self.run("--dry-run", *words)
        assert result.returncode == 0, result.stderr
        (line,) = re.findall(r"^# command\n(.*)$", result.stdout, flags=re.M)
        return shlex.split(line)

    def shown_flags(self, *words: str) -> dict[str, str | bool]:
        command = self.shown(*words)
        script = str(self.code / self.script.replace(".sh", ".py"))
        return flags(command[command.index(script) + 1 :])


def table(output: str) -> dict[str, str]:
    """Read the `name   value` lines that stand before the command."""
    return dict(re.findall(r"^(\w+) {2,}(\S.*)$", output.split("\n# command")[0], flags=re.M))


def preset(config: str, call: str) -> list[str]:
    """The words that a preset prints."""
    source = f"source '{SCRIPTS}/configs/{config}' && {call}"
    done = subprocess.run(["bash", "-euc", source], capture_output=True, text=True, check=True, env=dict(os.environ))
    return done.stdout.split()
