"""scripts/run_multi_task.sh, run with a stand-in for run_multi_task.py that records how it was called."""

import sys

import pytest
from finetuning_machine import FineTuningMachine, table  # pyright: ignore[reportMissingImports]
from test_run_pretraining_sh import VOCAB, flags, refused  # pyright: ignore[reportMissingImports]

import run_multi_task
from bert.config import parse_args

DEFAULTS = {
    "init_checkpoint": "{code}/checkpoints/bert_uncased.pt",
    "data_dir": "{prepared}/download/glue/",
    "vocab_file": "{prepared}/" + VOCAB,
    "config_file": "{code}/bert_configs/base.json",
    "out_dir": "{code}/results/multi_task",
    "tasks": "all",
    "num_gpu": "1",  # as published, whatever the machine has
    "batch_size": "32",
    "gradient_accumulation_steps": "1",
    "learning_rate": "2e-5",
    "warmup_proportion": "0.1",
    "epochs": "25",
    "max_steps": "-1",
    "precision": "fp16",
    "seed": "42",
    "mode": "train eval",
}
BY_NAME = {"adapter": "pals", "sample": "anneal", "mixed_batches": "false", "freeze": "false", "multi": "true"}
BY_NAME |= {"resume_training": "false", "CODEDIR": "{code}"}


@pytest.fixture
def machine(tmp_path):
    return FineTuningMachine(tmp_path, "run_multi_task.sh")


def test_order_defaults_and_command(machine):
    shown = table(machine.run("--dry-run", tasks="inf").stdout)  # a variable of the environment does not count
    assert list(shown) == [*DEFAULTS, *BY_NAME]
    places = {"code": machine.code, "prepared": machine.prepared}
    assert shown == {name: value.format(**places) for name, value in {**DEFAULTS, **BY_NAME}.items()}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=1"]
    assert machine.shown()[:6] == [*launcher, f"{machine.code}/run_multi_task.py"]
    found = machine.shown_flags()
    assert {"do_train", "do_eval", "multi", "fp16"} <= set(found)
    assert not {"do_predict", "freeze", "mixed_batches", "resume_from_checkpoint"} & set(found)
    assert (found["tasks"], found["sample"], found["adapter"]) == ("all", "anneal", "pals")
    assert found["json_summary"] == f"{machine.results}/multi_task/dllogger.json"


def test_positions_and_names_reach_run_multi_task(machine):
    """Every flag that is passed is one that run_multi_task.py has, with a value that it takes."""
    values = [
        "",
        "",
        "None",
        "None",
        "",
        "cola,rte,custom:reviews",
        "2",
        "16",
        "4",
        "1e-4",
        "0.2",
        "3",
        "40",
        "bf16",
        "7",
    ]
    names = ["mixed_batches=true", "freeze=true", "multi=false", "resume_training=true", "sample=rr", "adapter=None"]
    words = machine.shown(*values, "train eval prediction", *names)
    config = parse_args(run_multi_task.Config, words[words.index(f"{machine.code}/run_multi_task.py") + 1 :])
    training = config.training
    assert (training.run.do_train, training.run.do_eval, training.run.do_predict) == (True, True, True)
    assert (training.model.vocab_file, training.model.config_file, training.precision.bf16) == (None, None, True)
    assert (training.batch.train_batch_size, training.batch.gradient_accumulation_steps) == (16, 4)
    assert (training.run.max_steps, training.run.num_train_epochs, training.run.seed) == (40, 3.0, 7)
    assert (config.task.tasks, config.sampling.sample, config.sampling.mixed_batches) == (values[5], "rr", True)
    assert (config.start.multi, training.checkpoint.resume_from_checkpoint) == (False, True)
    assert (training.adapter.adapter, training.adapter.freeze) == (None, True)
    assert "--nproc_per_node=2" in words


REFUSALS = [
    ("sample=random", "sample=random: expected prop, sqrt, anneal or rr"),
    ("gradient_accumulation_steps=5", "batch_size=32: not divisible by gradient_accumulation_steps=5"),
    ("mode=test", "mode=test: expected train, eval, prediction or some of them"),
    ("freeze=1", "freeze=1: expected true or false"),
    ("task_name=cola", "task_name=cola: unknown name, expected one of: init_checkpoint data_dir"),
    ("data_dir=/nowhere", "data_dir=/nowhere: no such directory"),
]


@pytest.mark.parametrize(("word", "message"), REFUSALS, ids=[word for word, _ in REFUSALS])
def test_refusals(machine, word, message):
    assert message in refused(machine.run(word))
    assert machine.calls() == []
    assert not machine.results.exists()


def test_a_run_appends_to_its_log(machine):
    machine.list_gpus(0)
    for mode in ("train", "eval"):
        assert machine.run(f"mode={mode}").returncode == 0
    assert (machine.results / "multi_task" / "logfile").read_text() == "training\ntraining\n"
    one, two = (flags(call) for call in machine.calls())
    assert ("do_train" in one, "do_train" in two) == (True, False)
    assert machine.run(EXIT_CODE="37").returncode == 37
