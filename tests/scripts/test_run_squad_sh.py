"""scripts/run_squad.sh, run with a stand-in for run_squad.py that records how it was called."""

import signal
import subprocess
import sys
import time

import pytest
from finetuning_machine import FineTuningMachine, preset, table  # pyright: ignore[reportMissingImports]
from test_run_pretraining_sh import VOCAB, flags, refused  # pyright: ignore[reportMissingImports]

import run_squad
from bert.config import parse_args

# The published defaults, by position.
DEFAULTS = {
    "init_checkpoint": "{code}/checkpoints/bert_uncased.pt",
    "epochs": "2.0",
    "batch_size": "4",
    "learning_rate": "3e-5",
    "warmup_proportion": "0.1",
    "precision": "fp16",
    "num_gpu": "2",  # what the nvidia-smi of the tests lists
    "seed": "1",
    "squad_dir": "{prepared}/download/squad/v1.1",
    "vocab_file": "{prepared}/" + VOCAB,
    "OUT_DIR": "{code}/results/SQuAD",
    "mode": "train eval",
    "CONFIG_FILE": "{code}/bert_configs/large.json",
    "max_steps": "-1",
}
BY_NAME = {"gradient_accumulation_steps": "1", "resume_training": "false", "CODEDIR": "{code}"}


@pytest.fixture
def machine(tmp_path):
    return FineTuningMachine(tmp_path, "run_squad.sh")


def test_order_and_defaults(machine):
    shown = table(machine.run("--dry-run").stdout)
    assert list(shown) == [*DEFAULTS, *BY_NAME]
    places = {"code": machine.code, "prepared": machine.prepared}
    assert shown == {name: value.format(**places) for name, value in {**DEFAULTS, **BY_NAME}.items()}


def test_the_published_8_gpus_where_there_are_more(machine):
    machine.list_gpus(16)
    assert table(machine.run("--dry-run").stdout)["num_gpu"] == "8"


def test_the_command_of_the_defaults(machine):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    assert machine.shown()[:6] == [*launcher, f"{machine.code}/run_squad.py"]
    out = machine.code / "results" / "SQuAD"
    assert machine.shown_flags() == {
        "init_checkpoint": str(machine.checkpoint),
        "config_file": f"{machine.code}/bert_configs/large.json",
        "vocab_file": str(machine.vocab),
        "output_dir": str(out),
        "json_summary": f"{out}/dllogger.json",
        "disable_progress_bar": True,
        "fp16": True,
        "do_train": True,
        "do_predict": True,
        "do_eval": True,
        "train_file": f"{machine.squad}/v1.1/train-v1.1.json",
        "predict_file": f"{machine.squad}/v1.1/dev-v1.1.json",
        "train_batch_size": "4",
        "predict_batch_size": "4",
        "gradient_accumulation_steps": "1",
        "learning_rate": "3e-5",
        "warmup_proportion": "0.1",
        "num_train_epochs": "2.0",
        "max_steps": "-1",
        "max_seq_length": "384",
        "doc_stride": "128",
        "seed": "1",
    }


def test_every_position_is_passed_on(machine, tmp_path):
    names = ["a checkpoint.pt", "a vocabulary.txt", "a config.json"]
    checkpoint, vocab, config = (tmp_path / name for name in names)
    for path in (checkpoint, vocab, config):
        path.write_text("")
    values = [checkpoint, "1.5", "8", "1e-5", "0.2", "bf16", "1", "7", machine.squad / "v1.1", vocab, tmp_path / "out"]
    words = [str(value) for value in (*values, "train", config, "-1.0")]
    expected = {
        "init_checkpoint": str(checkpoint),
        "num_train_epochs": "1.5",
        "train_batch_size": "8",
        "learning_rate": "1e-5",
        "warmup_proportion": "0.2",
        "bf16": True,
        "seed": "7",
        "vocab_file": str(vocab),
        "output_dir": str(tmp_path / "out"),
        "config_file": str(config),
        "max_steps": "-1.0",
    }
    assert expected.items() <= machine.shown_flags(*words).items()
    assert "--nproc_per_node=1" in machine.shown(*words)
    assert "extra: more than 14 values" in refused(machine.run(*words, "extra"))


def test_empty_values_and_names(machine):
    words = ("", "3", "", "", "", "tf32", "seed=9", "epochs=4", "gradient_accumulation_steps=2", "resume_training=true")
    found = machine.shown_flags(*words)
    assert (found["num_train_epochs"], found["seed"], found["train_batch_size"]) == ("4", "9", "4")
    assert found["tf32"] is found["resume_from_checkpoint"] is True
    assert found["gradient_accumulation_steps"] == "2"


MODES = {
    "train": {"do_train"},
    "eval": {"do_predict", "do_eval"},
    "prediction": {"do_predict"},
    "predict": {"do_predict"},
    "train eval": {"do_train", "do_predict", "do_eval"},
    "train prediction": {"do_train", "do_predict"},
    "train,predict": {"do_train", "do_predict"},
    "eval prediction": {"do_predict", "do_eval"},
    "train eval prediction": {"do_train", "do_predict", "do_eval"},
}


@pytest.mark.parametrize("mode", MODES)
def test_modes(machine, mode):
    found = machine.shown_flags(f"mode={mode}")
    assert {"do_train", "do_predict", "do_eval"} & set(found) == MODES[mode]
    assert ("train_file" in found) == ("train_batch_size" in found) == ("do_train" in found)
    assert ("predict_file" in found) == ("predict_batch_size" in found) == ("do_predict" in found)


def test_squad_2_is_found_by_its_files(machine):
    folder = machine.squad / "v2.0"
    folder.mkdir()
    (folder / "dev-v2.0.json").write_text("")
    found = machine.shown_flags(f"squad_dir={folder}", "mode=eval")
    assert found["predict_file"] == f"{folder}/dev-v2.0.json"
    assert "mode=train eval needs train-v1.1.json" in refused(machine.run(f"squad_dir={folder}"))
    (folder / "train-v2.0.json").write_text("")
    assert machine.shown_flags(f"squad_dir={folder}")["train_file"] == f"{folder}/train-v2.0.json"


def test_none_leaves_the_files_of_the_model_out(machine):
    machine.vocab.unlink()
    machine.checkpoint.unlink()
    found = machine.shown_flags("init_checkpoint=none", "vocab_file=None", "CONFIG_FILE=None")
    assert not {"init_checkpoint", "vocab_file", "config_file"} & set(found)


def test_no_gpu_means_one_process_on_the_cpu(machine):
    assert machine.shown("num_gpu=0")[:4] == [
        "env",
        "CUDA_VISIBLE_DEVICES=",
        sys.executable,
        f"{machine.code}/run_squad.py",
    ]
    machine.list_gpus(0)
    assert machine.shown()[:2] == [sys.executable, f"{machine.code}/run_squad.py"]


REFUSALS = [
    ("precision=fp8", "precision=fp8: expected fp16, fp32, tf32 or bf16"),
    ("batch_size=0", "batch_size=0: expected a whole number from 1"),
    ("epochs=many", "epochs=many: expected a number"),
    ("learning_rate=fast", "learning_rate=fast: expected a number such as 6e-3"),
    ("warmup_proportion=2", "warmup_proportion=2: expected a number from 0 to 1"),
    ("num_gpu=all", "num_gpu=all: expected a whole number from 0"),
    ("num_gpu=3", "num_gpu=3: this machine has 2"),
    ("seed=x", "seed=x: expected a whole number from 0"),
    ("max_steps=0", "max_steps=0: expected a whole number from 1, or -1"),
    ("mode=training", "mode=training: expected train, eval, prediction or some of them"),
    ("mode=train evl", "mode=train evl: expected train, eval, prediction or some of them"),
    ("gradient_accumulation_steps=3", "batch_size=4: not divisible by gradient_accumulation_steps=3"),
    ("resume_training=yes", "resume_training=yes: expected true or false"),
    ("batch=3", "batch=3: unknown name, expected one of: init_checkpoint"),
    ("--fp16", "--fp16: unknown option"),
    ("init_checkpoint=/nowhere/x.pt", "init_checkpoint=/nowhere/x.pt: no such file"),
    ("vocab_file=/nowhere/v.txt", "vocab_file=/nowhere/v.txt: no such file"),
    ("CONFIG_FILE=nowhere.json", "nowhere.json: no such file"),
    ("squad_dir=/nowhere", "squad_dir=/nowhere: no such directory"),
    ("squad_dir=/", "squad_dir=/: mode=train eval needs train-v1.1.json"),
]


@pytest.mark.parametrize(("word", "message"), REFUSALS, ids=[word for word, _ in REFUSALS])
def test_refusals(machine, word, message):
    assert message in refused(machine.run(word))
    assert machine.calls() == []
    assert not machine.results.exists()


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_the_older_order_is_told(machine, precision):
    line = refused(machine.run("", "2", "3", "3e-5", precision, "8", "1"))
    assert line.startswith(f"error: warmup_proportion={precision}: position 5 is warmup_proportion, precision")


def test_a_missing_codedir_or_script(machine):
    assert "it has no run_squad.py" in refused(machine.run(f"CODEDIR={machine.prepared}", codedir=False))
    assert "CODEDIR=/nowhere: no such directory" in refused(machine.run("CODEDIR=/nowhere", codedir=False))


def test_help_is_the_comment_at_the_top(machine):
    result = machine.run("--help")
    assert result.returncode == 0
    assert result.stdout.startswith("Fine-tune BERT on SQuAD")
    assert "shellcheck" not in result.stdout


def test_a_run_appends_to_its_log(machine):
    machine.list_gpus(0)
    out = machine.prepared / "my results"
    for mode in ("train", "eval"):
        result = machine.run(f"OUT_DIR={out}", f"mode={mode}")
        assert result.returncode == 0, result.stderr
        assert result.stdout.splitlines()[-1] == "training"
    assert (out / "logfile.txt").read_text() == "training\ntraining\n"
    one, two = (flags(call) for call in machine.calls())
    assert one["output_dir"] == two["output_dir"] == str(out)
    assert "do_train" in one
    assert "do_train" not in two


def test_a_dry_run_starts_nothing(machine):
    assert machine.run("--dry-run").returncode == 0
    assert machine.calls() == []
    assert not machine.results.exists()


def test_a_failing_command_gives_its_exit_code(machine):
    machine.list_gpus(0)
    result = machine.run(EXIT_CODE="37")
    assert result.returncode == 37
    assert "exit code 37" in result.stderr


def test_sigterm_lets_the_command_save(machine, tmp_path):
    machine.list_gpus(0)
    started = tmp_path / "started"
    command = machine.command(f"CODEDIR={machine.code}", WAIT=str(started))
    process = subprocess.Popen(**command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while not started.exists():
        assert time.monotonic() < deadline, "the stand-in did not start"
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 143, err
    assert "saved a checkpoint" in out
    assert "saved a checkpoint" in (machine.results / "SQuAD" / "logfile.txt").read_text()


PRESETS = {  # precision, GPUs, sequences per GPU, accumulation steps
    "dgxa100-80g_8gpu_fp16": ("fp16", "8", "32", "1"),
    "dgxa100-80g_8gpu_bf16": ("bf16", "8", "32", "1"),
    "dgxa100-80g_8gpu_tf32": ("tf32", "8", "32", "1"),
    "dgx1-32g_8gpu_fp16": ("fp16", "8", "32", "1"),
    "dgx1-32g_8gpu_fp32": ("fp32", "8", "16", "1"),
    "24g_1gpu_bf16": ("bf16", "1", "256", "32"),
}


@pytest.mark.parametrize("name", PRESETS)
def test_presets_of_the_published_recipe(machine, name):
    machine.list_gpus(8)
    result = machine.run("--dry-run", *preset("squad_config.sh", name))
    assert result.returncode == 0, result.stderr
    shown = table(result.stdout)
    names = ("precision", "num_gpu", "batch_size", "gradient_accumulation_steps")
    assert tuple(shown[each] for each in names) == PRESETS[name]
    assert (shown["learning_rate"], shown["warmup_proportion"], shown["epochs"]) == ("4.6e-5", "0.2", "2.0")


@pytest.mark.parametrize(("name", "gpus", "config"), [("12g_1gpu_fp32", "1", "base"), ("cpu_fp32", "0", "small")])
def test_presets_of_small_machines(machine, name, gpus, config):
    shown = table(machine.run("--dry-run", *preset("squad_config.sh", name), "seed=3").stdout)
    assert (shown["num_gpu"], shown["precision"], shown["seed"]) == (gpus, "fp32", "3")
    assert shown["CONFIG_FILE"] == f"{machine.code}/bert_configs/{config}.json"


def test_the_flags_are_those_of_run_squad(machine):
    """Every flag that is passed is one that run_squad.py has, with a value that it takes."""
    words = machine.shown("resume_training=true", "precision=bf16", "max_steps=5.0")
    config = parse_args(run_squad.Config, words[words.index(f"{machine.code}/run_squad.py") + 1 :])
    assert (config.training.run.max_steps, config.training.precision.bf16) == (5, True)
    assert config.squad.predict_batch_size == config.training.batch.train_batch_size == 4
