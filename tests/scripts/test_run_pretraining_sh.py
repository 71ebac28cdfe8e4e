"""scripts/run_pretraining.sh, run with a stand-in for run_pretraining.py that records how it was called."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent.parent / "scripts"

# The published defaults, by position.
DEFAULTS = {
    "train_batch_size": "8192",
    "learning_rate": "6e-3",
    "precision": "fp16",
    "num_gpus": "2",  # what the nvidia-smi of the tests lists
    "warmup_proportion": "0.2843",
    "train_steps": "7038",
    "save_checkpoint_steps": "200",
    "resume_training": "false",
    "create_logfile": "true",
    "accumulate_gradients": "true",
    "gradient_accumulation_steps": "128",
    "seed": "12439",
    "job_name": "bert_lamb_pretraining",
    "allreduce_post_accumulation": "true",
    "allreduce_post_accumulation_fp16": "true",
    "train_batch_size_phase2": "4096",
    "learning_rate_phase2": "4e-3",
    "warmup_proportion_phase2": "0.128",
    "train_steps_phase2": "1563",
    "gradient_accumulation_steps_phase2": "512",
    "DATA_DIR_PHASE1": "{prepared}/pretrain/phase1/unbinned/parquet/",
    "DATA_DIR_PHASE2": "{prepared}/pretrain/phase2/bin_size_64/parquet/",
    "CODEDIR": "{code}",
    "init_checkpoint": "None",
    "wikipedia_source": "{prepared}/wikipedia/source/",
    "num_dask_workers": str(os.cpu_count()),
    "num_shards_per_worker": "128",
    "num_workers": "4",
    "sample_ratio": "0.9",
    "phase2_bin_size": "64",
    "masking": "static",
    "BERT_CONFIG": "{code}/bert_configs/large.json",
}
NAMES = list(DEFAULTS)
VOCAB = "download/google_pretrained_weights/uncased_L-24_H-1024_A-16/vocab.txt"

STAND_IN = """
import json, os, signal, sys, time
with open(os.path.join(os.path.dirname(__file__), "calls.jsonl"), "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
print("training", flush=True)
if os.environ.get("WAIT"):
    def save(number, frame):
        print("saved a checkpoint", flush=True)
        sys.exit(0)
    signal.signal(signal.SIGTERM, save)
    open(os.environ["WAIT"], "w").close()
    time.sleep(60)
sys.exit(int(os.environ.get("EXIT_CODE", "0")))
"""


class Machine:
    """A code directory, prepared data and an nvidia-smi that lists two GPUs."""

    def __init__(self, root: Path):
        self.code, self.prepared, self.bin = root / "my code", root / "prepared", root / "bin"
        for directory in (self.code / "bert_configs", self.bin, *self.data, (self.prepared / VOCAB).parent):
            directory.mkdir(parents=True)
        for directory in self.data:
            (directory / "shard.hdf5").write_text("")
        (self.prepared / VOCAB).write_text("[PAD]")
        (self.code / "run_pretraining.py").write_text(STAND_IN)
        for name in ("large", "base", "small"):
            (self.code / "bert_configs" / f"{name}.json").write_text("{}")
        self.list_gpus(2)

    @property
    def data(self) -> tuple[Path, Path]:
        pretrain = self.prepared / "pretrain"
        return pretrain / "phase1" / "unbinned" / "parquet", pretrain / "phase2" / "bin_size_64" / "parquet"

    @property
    def results(self) -> Path:
        return self.code / "results"

    def list_gpus(self, count: int) -> None:
        command = self.bin / "nvidia-smi"
        command.write_text("#!/bin/sh\n" + "".join(f"echo 'GPU {n}: Some GPU (UUID: {n})'\n" for n in range(count)))
        command.chmod(0o755)

    def environment(self, **more: str) -> dict[str, str]:
        path = f"{self.bin}{os.pathsep}{os.environ['PATH']}"
        given = {"PATH": path, "BERT_PREP_WORKING_DIR": str(self.prepared), "PYTHON": sys.executable, **more}
        return {**{k: v for k, v in os.environ.items() if k != "VOCAB_FILE"}, **given}

    def run(self, *words: str, codedir: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        words = (*words, f"CODEDIR={self.code}") if codedir else words
        return subprocess.run(
            ["bash", str(SCRIPTS / "run_pretraining.sh"), *words],
            cwd=self.prepared,  # a relative BERT_CONFIG is sought here before CODEDIR
            env=self.environment(**environment),
            capture_output=True,
            text=True,
            timeout=240,
        )

    def calls(self) -> list[list[str]]:
        file = self.code / "calls.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def default(self, name: str) -> str:
        return DEFAULTS[name].format(prepared=self.prepared, code=self.code)


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def table(output: str) -> dict[str, str]:
    """Read the `name   value` lines that stand before the commands."""
    rows = re.findall(r"^(\w+) {2,}(\S.*)$", output.split("\n# phase")[0], flags=re.M)
    return dict(rows)


def commands(output: str) -> list[list[str]]:
    return [shlex.split(line) for line in re.findall(r"^# phase \d(?:, its shards)?\n(.*)$", output, flags=re.M)]


def flags(command: list[str]) -> dict[str, str | bool]:
    """{flag: value} of the words after run_pretraining.py; a bare flag is True."""
    found: dict[str, str | bool] = {}
    words = iter(command)
    for word in words:
        assert word.startswith("--"), word
        name, equals, value = word[2:].partition("=")
        assert name not in found, f"{name} twice"
        found[name] = value if equals else next(words) if name == "json-summary" else True
    return found


def python_flags(command: list[str]) -> dict[str, str | bool]:
    scripts = ("run_pretraining.py", "preprocess.py")
    return flags(command[next(i for i, word in enumerate(command) if word.endswith(scripts)) + 1 :])


def refused(result: subprocess.CompletedProcess[str]) -> str:
    """Return the error line of a refusal; there is exactly one and exit code 2."""
    lines = [line for line in result.stderr.splitlines() if not line.startswith("note: ")]
    assert result.returncode == 2, result.stderr
    assert len(lines) == 1, result.stderr
    return lines[0]


# ---- values


def test_the_order_of_the_positions(machine):
    result = machine.run("--dry-run")
    assert result.returncode == 0, result.stderr
    assert list(table(result.stdout)) == [*NAMES, "text_source", "vocab_file", "phases", "numa_binding"]
    assert len(NAMES) == 32


def test_defaults(machine):
    shown = table(machine.run("--dry-run").stdout)
    by_name = {"text_source": "None", "vocab_file": f"{machine.prepared}/{VOCAB}"}
    choices = {"phases": "both", "numa_binding": "none"}
    assert shown == {name: machine.default(name) for name in NAMES} | by_name | choices


def test_codedir_defaults_to_the_repository(machine):
    shown = table(machine.run("--dry-run", codedir=False).stdout)
    expected = "/workspace/bert" if Path("/workspace/bert").is_dir() else str(SCRIPTS.parent)
    assert shown["CODEDIR"] == expected


def test_variables_of_the_environment_are_not_taken_for_values(machine):
    shown = table(machine.run("--dry-run", seed="1", precision="fp8").stdout)
    assert (shown["seed"], shown["precision"]) == ("12439", "fp16")


def test_values_by_position(machine):
    values = [machine.default(name) for name in NAMES]
    values[0], values[1], values[11], values[31] = "1024", "1e-4", "7", f"{machine.code}/bert_configs/base.json"
    shown = table(machine.run("--dry-run", *values, codedir=False).stdout)
    assert [shown[name] for name in NAMES] == values


def test_an_empty_position_keeps_its_default(machine):
    shown = table(machine.run("--dry-run", "", "", "bf16").stdout)
    assert (shown["train_batch_size"], shown["precision"]) == ("8192", "bf16")


def test_names_stand_anywhere_and_win_over_positions(machine):
    shown = table(machine.run("seed=5", "4096", "train_batch_size=2048", "1e-3", "--dry-run", "masking=dynamic").stdout)
    assert (shown["seed"], shown["masking"]) == ("5", "dynamic")
    assert (shown["train_batch_size"], shown["learning_rate"]) == ("2048", "1e-3")


def test_vocab_file_by_name_and_by_environment(machine, tmp_path):
    vocabulary = tmp_path / "my vocab.txt"
    vocabulary.write_text("[PAD]")
    for result in (
        machine.run("--dry-run", f"vocab_file={vocabulary}"),
        machine.run("--dry-run", VOCAB_FILE=str(vocabulary)),
    ):
        assert result.returncode == 0, result.stderr
        assert [python_flags(c)["vocab_file"] for c in commands(result.stdout)] == [str(vocabulary)] * 2


# ---- commands


def test_commands(machine):
    one, two = commands(machine.run("--dry-run").stdout)
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    assert one[:6] == two[:6] == [*start, f"{machine.code}/run_pretraining.py"]
    both = {
        "output_dir": f"{machine.code}/results/checkpoints",
        "config_file": f"{machine.code}/bert_configs/large.json",
        "vocab_file": f"{machine.prepared}/{VOCAB}",
        "num_steps_per_checkpoint": "200",
        "seed": "12439",
        "num_workers": "4",
        "do_train": True,
        "json-summary": f"{machine.code}/results/dllogger.json",
        "disable_progress_bar": True,
        "fp16": True,
        "allreduce_post_accumulation": True,
        "allreduce_post_accumulation_fp16": True,
    }
    assert python_flags(one) == both | {
        "input_dir": machine.default("DATA_DIR_PHASE1"),
        "max_seq_length": "128",
        "max_predictions_per_seq": "20",
        "train_batch_size": "8192",
        "gradient_accumulation_steps": "128",
        "max_steps": "7038",
        "warmup_proportion": "0.2843",
        "learning_rate": "6e-3",
    }
    assert python_flags(two) == both | {
        "input_dir": machine.default("DATA_DIR_PHASE2"),
        "max_seq_length": "512",
        "max_predictions_per_seq": "80",
        "train_batch_size": "4096",
        "gradient_accumulation_steps": "512",
        "max_steps": "1563",
        "warmup_proportion": "0.128",
        "learning_rate": "4e-3",
        "phase2": True,
        "resume_from_checkpoint": True,
        "phase1_end_step": "7038",
    }


def test_switches(machine, tmp_path):
    weights = tmp_path / "weights.pt"
    weights.write_text("")
    words = ("allreduce_post_accumulation=false", "allreduce_post_accumulation_fp16=false", "resume_training=true")
    one, two = commands(machine.run("--dry-run", *words, f"init_checkpoint={weights}", "train_steps=9").stdout)
    for command in (one, two):
        assert not {"allreduce_post_accumulation", "allreduce_post_accumulation_fp16"} & set(python_flags(command))
        assert python_flags(command)["resume_from_checkpoint"] is True
    assert python_flags(one)["init_checkpoint"] == str(weights)
    assert "init_checkpoint" not in python_flags(two)  # phase 2 starts from phase 1
    assert python_flags(two)["phase1_end_step"] == "9"


def test_without_accumulation_the_batch_is_not_split(machine):
    result = machine.run("--dry-run", "accumulate_gradients=false", "train_batch_size=10", "train_batch_size_phase2=3")
    assert [python_flags(c)["gradient_accumulation_steps"] for c in commands(result.stdout)] == ["1", "1"]
    assert result.returncode == 0


@pytest.mark.parametrize("precision", ["fp16", "fp32", "tf32", "bf16"])
def test_precisions(machine, precision):
    result = machine.run("--dry-run", f"precision={precision}")
    for command in commands(result.stdout):
        expected = set() if precision == "fp32" else {precision}
        assert {"fp16", "fp32", "tf32", "bf16"} & set(python_flags(command)) == expected
        assert ("allreduce_post_accumulation_fp16" in python_flags(command)) == (precision == "fp16")
    assert ("note: allreduce_post_accumulation_fp16=false" in result.stderr) == (precision != "fp16")


def test_no_gpu_means_one_process_on_the_cpu(machine):
    machine.list_gpus(0)
    result = machine.run("--dry-run")
    assert table(result.stdout)["num_gpus"] == "0"
    assert all(c[:2] == [sys.executable, f"{machine.code}/run_pretraining.py"] for c in commands(result.stdout))


def test_zero_gpus_hides_those_that_are_there(machine):
    for command in commands(machine.run("--dry-run", "num_gpus=0").stdout):
        assert command[:4] == ["env", "CUDA_VISIBLE_DEVICES=", sys.executable, f"{machine.code}/run_pretraining.py"]


@pytest.mark.parametrize(("phase", "length"), [("1", "128"), ("2", "512")])
def test_one_phase_alone(machine, phase, length):
    (command,) = commands(machine.run("--dry-run", f"phases={phase}").stdout)
    assert python_flags(command)["max_seq_length"] == length
    assert ("phase2" in python_flags(command)) == (phase == "2")


def test_processes_are_bound_to_cores_by_torchrun(machine):
    one, two = commands(machine.run("--dry-run", "numa_binding=node").stdout)
    assert one[5] == two[5] == "--numa-binding=node"


# ---- refusals

REFUSALS = [
    ("precision=fp8", "precision=fp8: expected fp16, fp32, tf32 or bf16"),
    ("train_batch_size=many", "train_batch_size=many: expected a whole number from 1"),
    ("train_steps=0", "train_steps=0: expected a whole number from 1"),
    ("train_steps=7038.0", "train_steps=7038.0: expected a whole number from 1"),
    ("num_gpus=-1", "num_gpus=-1: expected a whole number from 0"),
    ("seed=x", "seed=x: expected a whole number from 0"),
    ("learning_rate=6e", "learning_rate=6e: expected a number such as 6e-3"),
    ("learning_rate_phase2=fast", "learning_rate_phase2=fast: expected a number"),
    ("warmup_proportion=1.5", "warmup_proportion=1.5: expected a number from 0 to 1"),
    ("resume_training=yes", "resume_training=yes: expected true or false"),
    ("phase2_bin_size=100", "phase2_bin_size=100: expected none, 32, 64"),
    ("phases=3", "phases=3: expected 1, 2 or both"),
    ("numa_binding=all", "numa_binding=all: expected none, node, socket"),
    ("masking=random", "masking=random: expected static or dynamic"),
    ("job_name=a/b", "job_name=a/b: expected a file name"),
    ("gradient_accumulation_steps=100", "train_batch_size=8192: not divisible by gradient_accumulation_steps=100"),
    ("train_batch_size_phase2=100", "train_batch_size_phase2=100: not divisible by gradient_accumulation_steps_phase2"),
    ("train_batch_size_phase2=false", "position 16 is no longer accumulate_into_fp16"),
    ("batch=3", "batch=3: unknown name, expected one of: train_batch_size"),
    ("--fp16", "--fp16: unknown option"),
    ("BERT_CONFIG=nowhere.json", "nowhere.json: no such file"),
    ("CODEDIR=/nowhere", "CODEDIR=/nowhere: no such directory"),
    ("vocab_file=/nowhere/vocab.txt", "vocab_file=/nowhere/vocab.txt: no such file; give vocab_file=FILE, fetch"),
    ("init_checkpoint=/nowhere/x.pt", "init_checkpoint=/nowhere/x.pt: no such file"),
    ("DATA_DIR_PHASE1=/nowhere/1", "DATA_DIR_PHASE1=/nowhere/1: no shards there, and wikipedia_source="),
    ("DATA_DIR_PHASE2=/nowhere/2", "DATA_DIR_PHASE2=/nowhere/2: no shards there, and wikipedia_source="),
    ("num_gpus=3", "num_gpus=3: this machine has 2"),
]


@pytest.mark.parametrize("options", [(), ("--dry-run",)], ids=["run", "dry-run"])
@pytest.mark.parametrize(("word", "message"), REFUSALS, ids=[word for word, _ in REFUSALS])
def test_refusals(machine, word, message, options):
    if word.startswith("CODEDIR"):
        (machine.code / "bert_configs" / "large.json").rename(machine.prepared / "c.json")
        words = (f"CODEDIR={machine.code}", word, f"BERT_CONFIG={machine.prepared}/c.json")
        result = machine.run(*words, *options, codedir=False)
    else:
        result = machine.run(word, *options)
    assert message in refused(result)
    assert machine.calls() == []
    assert not machine.results.exists()


def test_a_33rd_value_is_refused(machine):
    assert "extra: more than 32 values" in refused(machine.run(*[""] * 32, "extra"))


def test_the_bad_position_is_named(machine):
    assert refused(machine.run("8192", "6e-3", "half")).startswith("error: precision=half:")


@pytest.mark.parametrize("phase", [1, 2])
def test_an_empty_data_directory_and_no_text_to_fill_it_from(machine, phase):
    directory = machine.data[phase - 1]
    (directory / "shard.hdf5").unlink()
    line = refused(machine.run())
    assert f"DATA_DIR_PHASE{phase}={directory}/: no shards there, and wikipedia_source={machine.prepared}" in line
    assert "text_source=FOLDER" in line
    assert "text_source=/nowhere to prepare them from does not exist" in refused(machine.run("text_source=/nowhere"))
    assert machine.calls() == []


def test_a_dry_run_shows_the_commands_before_it_refuses_a_path(machine):
    result = machine.run("--dry-run", "DATA_DIR_PHASE2=/nowhere/2")
    assert len(commands(result.stdout)) == 3  # phase 1, the shards of phase 2, phase 2
    assert "/nowhere/2" in refused(result)


# ---- shards


def test_missing_shards_are_prepared_as_the_values_say(machine):
    for directory in machine.data:
        (directory / "shard.hdf5").unlink()
    source = machine.prepared / "my texts"
    source.mkdir()
    values = ("num_dask_workers=3", "num_shards_per_worker=5", "sample_ratio=0.5", "seed=7")
    result = machine.run("--dry-run", f"text_source={source}", *values)
    assert result.returncode == 0, result.stderr
    one, _, two, _ = (python_flags(command) for command in commands(result.stdout))
    same = {
        "vocab-file": str(machine.prepared / VOCAB),
        "text": str(source),
        "num-blocks": "30",  # 5 shards, 3 workers, 2 GPUs
        "local-n-workers": "3",
        "sample-ratio": "0.5",
        "seed": "7",
        "masking": True,
    }
    directories = [str(directory) + ".preparing" for directory in machine.data]
    assert one == {**same, "sink": directories[0], "target-seq-length": "128"}
    assert two == {**same, "sink": directories[1], "target-seq-length": "512", "bin-size": "64"}

    source = machine.prepared / "wikipedia" / "source"
    source.mkdir(parents=True)
    result = machine.run("--dry-run", "masking=dynamic", "phase2_bin_size=none")
    two = python_flags(commands(result.stdout)[2])
    assert two["wikipedia"] == f"{source}/"
    assert not {"masking", "bin-size", "text"} & set(two)


@pytest.mark.slow
def test_shards_are_prepared_balanced_and_trained_on(machine, make_text, vocab_file):
    for name in ("bert", "data"):
        (machine.code / name).symlink_to(SCRIPTS.parent / name)
    shutil.copy(vocab_file, machine.prepared / VOCAB)
    for directory in machine.data:
        (directory / "shard.hdf5").unlink()
    source = machine.prepared / "my texts"
    source.mkdir()
    (source / "a.txt").write_text(make_text(400))
    machine.list_gpus(0)
    words = (f"text_source={source}", "num_dask_workers=2", "num_shards_per_worker=2")
    result = machine.run(*words)
    assert result.returncode == 0, result.stderr
    assert [flags(call)["max_seq_length"] for call in machine.calls()] == ["128", "512"]
    names = [sorted(path.name for path in directory.iterdir()) for directory in machine.data]
    assert "manifest.json" in names[0]
    # Two workers make 4 blocks of the text, and so as many shards.
    assert [name for name in names[0] if not name.startswith((".", "manifest"))] == [
        f"shard-{i}.parquet" for i in range(4)
    ]
    assert any(name.startswith("shard-0.parquet_") for name in names[1])
    assert not list(machine.prepared.rglob("*.preparing"))
    again = machine.run(*words)
    assert "preparing" not in again.stdout


# ---- runs, on the CPU


def test_both_phases_run_and_leave_their_logs(machine):
    machine.list_gpus(0)
    result = machine.run("job_name=job", "precision=bf16")
    assert result.returncode == 0, result.stderr
    one, two = (flags(call) for call in machine.calls())
    assert (one["max_seq_length"], two["max_seq_length"]) == ("128", "512")
    assert two["phase2"] is True
    assert (machine.results / "checkpoints").is_dir()
    logs = sorted(path.name for path in machine.results.glob("*.log"))
    assert len(logs) == 2
    assert re.fullmatch(r"job\.pyt_bert_pretraining_phase1_bf16_gbs8192\.\d{12}\.log", logs[0])
    assert re.fullmatch(r"job\.pyt_bert_pretraining_phase2_bf16_gbs4096\.\d{12}\.log", logs[1])
    assert (machine.results / logs[0]).read_text() == "training\n"
    assert result.stdout.splitlines().count("training") == 2  # on the terminal too


def test_a_dry_run_starts_nothing(machine):
    assert machine.run("--dry-run", "num_gpus=0").returncode == 0
    assert machine.calls() == []
    assert not machine.results.exists()


def test_no_log_file_on_request(machine):
    machine.list_gpus(0)
    result = machine.run("create_logfile=false")
    assert (result.returncode, result.stdout.splitlines().count("training")) == (0, 2)
    assert list(machine.results.glob("*.log")) == []


def test_a_failing_phase_stops_the_script_with_its_exit_code(machine):
    machine.list_gpus(0)
    result = machine.run(EXIT_CODE="37")
    assert result.returncode == 37
    assert "exit code 37" in result.stderr
    assert len(machine.calls()) == 1


@pytest.mark.parametrize("newest", [100, 150])
def test_resuming_after_phase_1_goes_to_phase_2(machine, newest):
    machine.list_gpus(0)
    checkpoints = machine.results / "checkpoints"
    checkpoints.mkdir(parents=True)
    for name in ("ckpt_9.pt", f"ckpt_{newest}.pt", "ckpt_best.pt"):
        (checkpoints / name).write_text("")
    result = machine.run("resume_training=true", "train_steps=100")
    assert f"phase 1 is done: ckpt_{newest}.pt" in result.stdout
    (call,) = (flags(call) for call in machine.calls())
    assert call["phase2"] is True
    assert call["resume_from_checkpoint"] is True


def test_resuming_within_phase_1_runs_both(machine):
    machine.list_gpus(0)
    checkpoints = machine.results / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / "ckpt_99.pt").write_text("")
    machine.run("resume_training=true", "train_steps=100")
    one, two = (flags(call) for call in machine.calls())
    assert one["resume_from_checkpoint"] is True
    assert "phase2" not in one
    assert two["phase2"] is True


def test_sigterm_lets_the_command_save_and_starts_no_second_phase(machine, tmp_path):
    machine.list_gpus(0)
    started = tmp_path / "started"
    process = subprocess.Popen(
        ["bash", str(SCRIPTS / "run_pretraining.sh"), f"CODEDIR={machine.code}"],
        env=machine.environment(WAIT=str(started)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 30
    while not started.exists():
        assert time.monotonic() < deadline, "the stand-in did not start"
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)  # to the script alone, as a container's stop does
    out, err = process.communicate(timeout=30)
    assert process.returncode == 143
    assert "saved a checkpoint" in out
    assert "stopped by a signal" in err
    assert len(machine.calls()) == 1


# ---- presets

PRESETS = {  # precision, GPUs, accumulation of the two phases, fp16 all-reduce
    "dgxa100-80g_8gpu_fp16": ("fp16", 8, 32, 128, True),
    "dgxa100-80g_8gpu_tf32": ("tf32", 8, 64, 256, False),
    "dgxa100-80g_8gpu_bf16": ("bf16", 8, 32, 128, False),
    "dgx1-32g_8gpu_fp16": ("fp16", 8, 64, 256, True),
    "dgx1-32g_8gpu_fp32": ("fp32", 8, 128, 512, False),
    "24g_1gpu_bf16": ("bf16", 1, 1024, 4096, False),
}


def preset(name: str) -> list[str]:
    source = f"source '{SCRIPTS}/configs/pretrain_config.sh' && {name}"
    return subprocess.run(["bash", "-euc", source], capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize("name", PRESETS)
def test_presets_of_the_published_recipe(machine, name):
    machine.list_gpus(8)
    precision, gpus, accumulation, accumulation2, fp16_allreduce = PRESETS[name]
    result = machine.run("--dry-run", *preset(name))
    assert result.returncode == 0, result.stderr
    shown = table(result.stdout)
    assert (shown["precision"], shown["num_gpus"], shown["seed"]) == (precision, str(gpus), "42")
    assert shown["gradient_accumulation_steps"] == str(accumulation)
    assert shown["gradient_accumulation_steps_phase2"] == str(accumulation2)
    assert shown["allreduce_post_accumulation_fp16"] == str(fp16_allreduce).lower()
    assert int(shown["train_batch_size"]) * gpus == 65536
    assert int(shown["train_batch_size_phase2"]) * gpus == 32768
    for same in ("learning_rate", "warmup_proportion", "train_steps", "learning_rate_phase2", "train_steps_phase2"):
        assert shown[same] == DEFAULTS[same]
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("name", "gpus", "config"), [("8g_1gpu_fp16", "1", "base.json"), ("cpu_fp32", "0", "small.json")]
)
def test_presets_of_small_machines(machine, name, gpus, config):
    result = machine.run("--dry-run", *preset(name))
    assert result.returncode == 0, result.stderr
    shown = table(result.stdout)
    assert shown["num_gpus"] == gpus
    assert shown["BERT_CONFIG"] == f"{machine.code}/bert_configs/{config}"


def test_a_preset_can_be_adjusted(machine):
    machine.list_gpus(8)
    shown = table(machine.run("--dry-run", *preset("dgxa100-80g_8gpu_fp16"), "train_steps=10").stdout)
    assert (shown["train_steps"], shown["gradient_accumulation_steps"]) == ("10", "32")
