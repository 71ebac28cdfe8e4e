"""scripts/run_glue.sh, run with a stand-in for run_glue.py that records how it was called."""

import sys

import pytest
from finetuning_machine import FineTuningMachine, preset, table  # pyright: ignore[reportMissingImports]
from test_run_pretraining_sh import VOCAB, flags, refused  # pyright: ignore[reportMissingImports]

import run_glue
from bert.config import parse_args

# The published defaults, by position.
DEFAULTS = {
    "init_checkpoint": "{code}/checkpoints/bert_uncased.pt",
    "data_dir": "{prepared}/download/glue/MRPC/",
    "vocab_file": "{prepared}/" + VOCAB,
    "config_file": "{code}/bert_configs/large.json",
    "out_dir": "{code}/results/MRPC",
    "task_name": "mrpc",
    "num_gpu": "2",  # what the nvidia-smi of the tests lists
    "batch_size": "16",
    "gradient_accumulation_steps": "1",
    "learning_rate": "2.4e-5",
    "warmup_proportion": "0.1",
    "epochs": "3",
    "max_steps": "-1",
    "precision": "fp16",
    "seed": "2",
    "mode": "train eval",
}
BY_NAME = {"resume_training": "false", "CODEDIR": "{code}"}


@pytest.fixture
def machine(tmp_path):
    return FineTuningMachine(tmp_path, "run_glue.sh")


def test_order_and_defaults(machine):
    shown = table(machine.run("--dry-run", task_name="cola").stdout)  # a variable of the environment does not count
    assert list(shown) == [*DEFAULTS, *BY_NAME]
    places = {"code": machine.code, "prepared": machine.prepared}
    assert shown == {name: value.format(**places) for name, value in {**DEFAULTS, **BY_NAME}.items()}


def test_the_command_of_the_defaults(machine):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    assert machine.shown()[:6] == [*launcher, f"{machine.code}/run_glue.py"]
    assert machine.shown_flags() == {
        "init_checkpoint": str(machine.checkpoint),
        "config_file": f"{machine.code}/bert_configs/large.json",
        "vocab_file": str(machine.vocab),
        "task_name": "mrpc",
        "data_dir": f"{machine.glue}/MRPC/",
        "output_dir": f"{machine.results}/MRPC",
        "json_summary": f"{machine.results}/MRPC/dllogger.json",
        "disable_progress_bar": True,
        "fp16": True,
        "do_train": True,
        "do_eval": True,
        "train_batch_size": "16",
        "eval_batch_size": "16",
        "gradient_accumulation_steps": "1",
        "learning_rate": "2.4e-5",
        "warmup_proportion": "0.1",
        "num_train_epochs": "3",
        "max_steps": "-1",
        "max_seq_length": "128",
        "seed": "2",
    }


def test_every_position_is_passed_on(machine, tmp_path):
    checkpoint, vocab, config = (tmp_path / name for name in ("a checkpoint.pt", "a vocabulary.txt", "a config.json"))
    for path in (checkpoint, vocab, config):
        path.write_text("")
    paths = [checkpoint, machine.glue / "SST-2", vocab, config, tmp_path / "out"]
    numbers = ["sst-2", "1", "32", "4", "1e-5", "0.3", "5", "-1.0", "bf16", "7", "prediction"]
    words = [*map(str, paths), *numbers]
    assert machine.shown_flags(*words) == {
        "init_checkpoint": str(checkpoint),
        "data_dir": f"{machine.glue}/SST-2",
        "vocab_file": str(vocab),
        "config_file": str(config),
        "output_dir": f"{tmp_path}/out",
        "json_summary": f"{tmp_path}/out/dllogger.json",
        "task_name": "sst-2",
        "train_batch_size": "32",
        "eval_batch_size": "32",
        "gradient_accumulation_steps": "4",
        "learning_rate": "1e-5",
        "warmup_proportion": "0.3",
        "num_train_epochs": "5",
        "max_steps": "-1.0",
        "bf16": True,
        "seed": "7",
        "do_predict": True,
        "max_seq_length": "128",
        "disable_progress_bar": True,
    }
    assert "--nproc_per_node=1" in machine.shown(*words)
    assert "extra: more than 16 values" in refused(machine.run(*words, "extra"))


MODES = {
    "train": {"do_train"},
    "eval": {"do_eval"},
    "prediction": {"do_predict"},
    "predict": {"do_predict"},
    "train-eval": {"do_train", "do_eval"},
    "evaltrain": {"do_train", "do_eval"},
    "eval prediction": {"do_eval", "do_predict"},
    "train eval prediction": {"do_train", "do_eval", "do_predict"},
}


@pytest.mark.parametrize("mode", MODES)
def test_modes_in_any_combination(machine, mode):
    found = machine.shown_flags(f"mode={mode}", "resume_training=true")
    assert {"do_train", "do_eval", "do_predict"} & set(found) == MODES[mode]
    assert ("resume_from_checkpoint" in found) == ("do_train" in found)


@pytest.mark.parametrize(
    ("task", "folder"), [("sst-2", "SST-2"), ("SST-2", "SST-2"), ("cola", "CoLA"), ("mnli-mm", "MNLI")]
)
def test_a_task_has_its_own_directories(machine, task, folder):
    (machine.glue / folder).mkdir(exist_ok=True)
    found = machine.shown_flags(f"task_name={task}")
    assert found["task_name"] == task
    assert found["data_dir"] == f"{machine.glue}/{folder}/"
    assert found["output_dir"] == f"{machine.results}/{folder}"


def test_none_leaves_the_files_of_the_model_out(machine):
    machine.vocab.unlink()
    machine.checkpoint.unlink()
    found = machine.shown_flags("init_checkpoint=none", "vocab_file=None", "config_file=None")
    assert not {"init_checkpoint", "vocab_file", "config_file"} & set(found)


REFUSALS = [
    ("precision=half", "precision=half: expected fp16, fp32, tf32 or bf16"),
    ("batch_size=16.0", "batch_size=16.0: expected a whole number from 1"),
    ("gradient_accumulation_steps=5", "batch_size=16: not divisible by gradient_accumulation_steps=5"),
    ("max_steps=1.5", "max_steps=1.5: expected a whole number from 1, or -1"),
    ("mode=test", "mode=test: expected train, eval, prediction or some of them"),
    ("task_name=a/b", "task_name=a/b: expected a file name"),
    ("num_gpu=3", "num_gpu=3: this machine has 2"),
    ("OUT_DIR=x", "OUT_DIR=x: unknown name, expected one of: init_checkpoint data_dir"),
    ("--do_train", "--do_train: unknown option"),
    ("init_checkpoint=/nowhere/x.pt", "init_checkpoint=/nowhere/x.pt: no such file"),
    ("vocab_file=/nowhere/v.txt", "vocab_file=/nowhere/v.txt: no such file"),
    ("config_file=nowhere.json", "nowhere.json: no such file"),
    ("task_name=rte", "download/glue/RTE/: no such directory"),
]


@pytest.mark.parametrize(("word", "message"), REFUSALS, ids=[word for word, _ in REFUSALS])
def test_refusals(machine, word, message):
    assert message in refused(machine.run(word))
    assert machine.calls() == []
    assert not machine.results.exists()


def test_a_list_without_max_steps_is_told(machine):
    words = ["", "", "", "", "", "mrpc", "8", "16", "1", "2.4e-5", "0.1", "3", "fp16", "2", "train eval"]
    assert refused(machine.run(*words)).startswith("error: max_steps=fp16: position 13 is max_steps, precision")


def test_a_run_appends_to_its_log(machine):
    machine.list_gpus(0)
    for mode in ("train", "eval"):
        result = machine.run(f"mode={mode}")
        assert result.returncode == 0, result.stderr
        assert result.stdout.splitlines()[-1] == "training"
    assert (machine.results / "MRPC" / "logfile").read_text() == "training\ntraining\n"
    one, two = (flags(call) for call in machine.calls())
    assert ("do_train" in one, "do_train" in two) == (True, False)


def test_a_failing_command_gives_its_exit_code(machine):
    machine.list_gpus(0)
    assert machine.run(EXIT_CODE="37").returncode == 37


PRESETS = {  # precision, GPUs, MRPC's sequences per GPU and accumulation steps, those of SST-2
    "dgxa100-80g_8gpu_fp16": ("fp16", "8", ("16", "1"), ("128", "1")),
    "dgxa100-80g_8gpu_bf16": ("bf16", "8", ("16", "1"), ("128", "1")),
    "dgxa100-80g_8gpu_tf32": ("tf32", "8", ("16", "1"), ("128", "1")),
    "dgx1-32g_8gpu_fp16": ("fp16", "8", ("16", "1"), ("128", "1")),
    "dgx1-32g_8gpu_fp32": ("fp32", "8", ("16", "1"), ("64", "1")),
    "24g_1gpu_bf16": ("bf16", "1", ("128", "2"), ("1024", "16")),
}
RECIPES = {"mrpc": ("1.8e-5", "0.3"), "sst-2": ("1e-5", "0.1")}


@pytest.mark.parametrize("task", RECIPES)
@pytest.mark.parametrize("name", PRESETS)
def test_presets_of_the_published_recipes(machine, name, task):
    machine.list_gpus(8)
    result = machine.run("--dry-run", *preset("glue_config.sh", f"{name} {task}"))
    assert result.returncode == 0, result.stderr
    shown = table(result.stdout)
    precision, gpus, *batches = PRESETS[name]
    assert (shown["task_name"], shown["precision"], shown["num_gpu"]) == (task, precision, gpus)
    batch = batches[list(RECIPES).index(task)]
    assert (shown["batch_size"], shown["gradient_accumulation_steps"]) == batch
    assert (shown["learning_rate"], shown["warmup_proportion"]) == RECIPES[task]


def test_the_preset_of_the_cpu(machine):
    shown = table(machine.run("--dry-run", *preset("glue_config.sh", "cpu_fp32")).stdout)
    assert (shown["num_gpu"], shown["task_name"], shown["batch_size"]) == ("0", "mrpc", "128")
    assert (shown["learning_rate"], shown["config_file"]) == ("1e-4", f"{machine.code}/bert_configs/small.json")


def test_the_flags_are_those_of_run_glue(machine):
    """Every flag that is passed is one that run_glue.py has, with a value that it takes."""
    words = machine.shown("resume_training=true", "precision=tf32", "mode=train eval prediction")
    config = parse_args(run_glue.Config, words[words.index(f"{machine.code}/run_glue.py") + 1 :])
    run = config.training.run
    assert (run.do_train, run.do_eval, run.do_predict, config.training.precision.tf32) == (True, True, True, True)
    assert config.sizes.eval_batch_size == config.training.batch.train_batch_size == 16
