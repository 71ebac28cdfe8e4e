"""An --output_dir that cannot be used is named before anything is read, and logs go where the output goes."""

import os
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import run_classifier
import run_glue
import run_multi_task
import run_pretraining
import run_squad
from bert.config import parse_args
from bert.distributed import World
from bert.errors import UsageError
from bert.log import LogConfig
from bert.train.run import Run, open_log

COMMANDS: dict[Any, list[str]] = {
    run_pretraining: ["--input_dir", "none", "--config_file", "none", "--vocab_file", "none"],
    run_squad: [],
    run_glue: ["--task_name", "mrpc", "--data_dir", "none"],
    run_classifier: ["--task_name", "mrpc", "--data_dir", "none"],
    run_multi_task: ["--tasks", "mrpc", "--data_dir", "none"],
}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
def test_an_output_dir_that_cannot_be_used(tmp_path, monkeypatch, command):
    (tmp_path / "file").touch()
    (tmp_path / "broken").symlink_to("nowhere")

    def refusal(output_dir) -> str:
        words = [*COMMANDS[command], "--do_train", "--device", "cpu", "--output_dir", str(output_dir)]
        with pytest.raises(UsageError) as raised:
            command.main(parse_args(command.Config, words))
        return str(raised.value)

    for name, there in (("file", "file"), ("file/below/it", "file"), ("broken", "broken")):
        path = tmp_path / name
        assert refusal(path) == f"--output_dir {path}: expected a folder, {tmp_path / there} is none"
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # as root, every folder can be written to
    path = tmp_path / "new" / "out"
    assert refusal(path) == f"--output_dir {path}: no permission to write to {tmp_path}"
    assert {each.name for each in tmp_path.iterdir()} == {"file", "broken"}


def test_nothing_is_written_to_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    settings: Any = SimpleNamespace(run=SimpleNamespace(output_dir=str(tmp_path / "a" / "out")), log=LogConfig())
    run = Run(settings, World(0, 0, 1, torch.device("cpu")), None)  # pyright: ignore[reportArgumentType]
    with open_log(run) as opened:
        opened.logger.parameter(SEED=1)
    assert list((tmp_path / "here").iterdir()) == []
    assert "SEED" in (tmp_path / "a" / "out" / "dllogger.json").read_text()
    assert (tmp_path / "a" / "out" / "tensorboard").is_dir()
    settings.run.output_dir = str(tmp_path / "a" / "out" / "dllogger.json")  # became a file meanwhile
    with pytest.raises(UsageError, match=r"^--output_dir .*dllogger.json: File exists$"), open_log(run):
        pass
