"""run.sub's values and commands, shown by DRY_RUN=1; no Slurm is needed. tests/slurm runs it in one."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


class Site:
    """A folder with prepared shards, where jobs are submitted; ``srun --help`` there lists ``options``."""

    def __init__(self, root: Path):
        self.root, self.bin = root / "my project", root / "bin"
        for length in (128, 512):
            (self.root / f"shards {length}").mkdir(parents=True)
            (self.root / f"shards {length}" / "shard-0.parquet").write_text("")
        (self.root / "vocab.txt").write_text("[PAD]")
        self.bin.mkdir()

    def add_command(self, name: str, prints: str = "") -> None:
        command = self.bin / name
        command.write_text(f"#!/bin/sh\necho '{prints}'\n")
        command.chmod(0o755)

    def run(self, **variables: object) -> subprocess.CompletedProcess[str]:
        given = {
            "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}",
            "HOME": "/",
            "PYTHON": sys.executable,
            "DRY_RUN": 1,
            "VOCAB_FILE": self.root / "vocab.txt",
            "datadir": self.root / "shards 128",
            "datadir_phase2": self.root / "shards 512",
            **variables,
        }
        environment = {name: str(value) for name, value in given.items()}
        command = ["bash", str(ROOT / "run.sub")]
        return subprocess.run(command, cwd=self.root, env=environment, capture_output=True, text=True, timeout=60)

    def commands(self, **variables: object) -> list[list[str]]:
        """Return the words of the commands that would run, the training last."""
        result = self.run(**variables)
        assert result.returncode == 0, result.stderr
        lines = result.stdout.splitlines()
        return [shlex.split(lines[i + 1]) for i, line in enumerate(lines) if line.startswith("# phase")]

    def training(self, **variables: object) -> dict[str, str]:
        """Return the flags of the training, those of srun among them; a bare flag is ""."""
        words = self.commands(**variables)[-1]
        pairs = [word.removeprefix("--").partition("=") for word in words if word.startswith("--")]
        return {name: value for name, _, value in pairs}

    def refused(self, **variables: object) -> str:
        result = self.run(**variables)
        lines = [line for line in result.stderr.splitlines() if not line.startswith("note: ")]
        assert (result.returncode, len(lines)) == (2, 1), result.stderr
        return lines[0].removeprefix("error: ")


@pytest.fixture
def site(tmp_path) -> Site:
    return Site(tmp_path)


FOUR_NODES = {"SLURM_JOB_NUM_NODES": 4, "SLURM_NTASKS_PER_NODE": 8}
OLD = {"BATCHSIZE": 2048, "LR": "5e-3", "GRADIENT_STEPS": 64, "WARMUP_UPDATES": "0.1", "checkpointdir": "/checks"}
NEW = {
    "TRAIN_BATCH_SIZE": 2048,
    "LEARNING_RATE": "5e-3",
    "GRADIENT_ACCUMULATION_STEPS": 64,
    "WARMUP_PROPORTION": "0.1",
    "CHECKPOINT_DIR": "/checks",
}


@pytest.mark.parametrize("spelling", [OLD, NEW, OLD | NEW], ids=["old", "new", "both"])
def test_both_spellings_say_the_same(site, spelling):
    flags = site.training(**FOUR_NODES, **spelling)
    assert {name: flags[name] for name in ("nodes", "ntasks", "ntasks-per-node", "train_batch_size")} == {
        "nodes": "4",
        "ntasks": "32",
        "ntasks-per-node": "8",
        "train_batch_size": "2048",
    }
    assert (flags["gradient_accumulation_steps"], flags["learning_rate"]) == ("64", "5e-3")
    assert (flags["warmup_proportion"], flags["output_dir"]) == ("0.1", "/checks")


def test_the_published_defaults_of_each_phase(site):
    names = ("max_seq_length", "max_predictions_per_seq", "max_steps", "learning_rate", "warmup_proportion")
    batch = ("train_batch_size", "gradient_accumulation_steps", "input_dir", "seed")
    one = site.training()
    assert [one[name] for name in names] == ["128", "20", "7038", "6e-3", "0.2843"]
    assert [one[name] for name in batch] == ["8192", "32", str(site.root / "shards 128"), "42"]
    assert "phase2" not in one
    (site.root / "results" / "JOB").mkdir(parents=True)
    two = site.training(PHASE=2)
    assert [two[name] for name in names] == ["512", "80", "1563", "4e-3", "0.128"]
    assert [two[name] for name in batch] == ["4096", "128", str(site.root / "shards 512"), "42"]
    assert "phase2" in two
    assert "resume_from_checkpoint" in one.keys() & two.keys()  # after a requeue they go on


def test_phase_2_finds_phase_1(site):
    results = site.root / "results"
    for job in ("7", "12"):
        (results / job).mkdir(parents=True)
    assert site.training(SLURM_JOB_ID=7)["output_dir"] == str(results / "7")
    after = {"PHASE": 2, "SLURM_JOB_ID": 13, "SLURM_JOB_DEPENDENCY": "afterok:12"}
    assert site.training(**after)["output_dir"] == str(results / "12")
    assert site.training(**after, checkpointdir=results / "7")["output_dir"] == str(results / "7")
    weights = site.root / "weights.pt"
    weights.write_text("")
    fresh = site.training(PHASE=2, SLURM_JOB_ID=13, INIT_CHECKPOINT=weights)
    assert (fresh["output_dir"], fresh["init_checkpoint"]) == (str(results / "13"), str(weights))
    line = site.refused(PHASE=2, SLURM_JOB_ID=13)
    assert line.startswith(
        f"PHASE=2: no checkpoints of phase 1 in {results / '13'}: give sbatch --dependency=afterok:JOB"
    )


def test_one_process_per_gpu_unless_sbatch_was_told_otherwise(site):
    def tasks(**variables: object) -> tuple[str, str]:
        flags = site.training(SLURM_JOB_NUM_NODES=2, **variables)
        return flags["ntasks"], flags["ntasks-per-node"]

    assert tasks() == ("16", "8")
    assert tasks(GPUS=4) == ("8", "4")
    assert tasks(SLURM_GPUS_ON_NODE=2) == ("4", "2")
    assert tasks(SLURM_NTASKS=6) == ("6", "3")
    assert tasks(SLURM_NTASKS=6, SLURM_NTASKS_PER_NODE=5) == ("10", "5")
    assert site.refused(SLURM_JOB_NUM_NODES=2, SLURM_NTASKS=3) == "SLURM_NTASKS=3: not divisible by nodes=2"


def test_a_suite_with_a_blank_in_its_path(site):
    suite = site.root / "my suite"
    suite.symlink_to(ROOT)
    assert f"{suite}/run_pretraining.py" in site.commands(CODEDIR=suite)[-1]


@pytest.mark.parametrize(
    ("nodes", "batch", "micro_batches", "used"),
    [(4, 2048, 128, 4), (8, 1024, 64, 8), (2, 4096, 256, 2), (1, 8192, 512, 1), (3, 4096, 256, 2), (7, 2048, 128, 4)],
)
def test_the_global_batch_is_dealt_out_to_any_number_of_nodes(site, nodes, batch, micro_batches, used):
    """65,536 sequences in micro-batches of 16, on nodes of 8; the node too many of 3 and 7 is left out."""
    size = {"SLURM_JOB_NUM_NODES": nodes, "SLURM_NTASKS_PER_NODE": 8}
    values = {"GLOBAL_BATCH_SIZE": 65536, "BATCHSIZE": 2048, "GRADIENT_STEPS": 128}
    flags = site.training(**size, **values)
    assert (flags["nodes"], flags["ntasks"]) == (str(used), str(8 * used))
    assert (flags["train_batch_size"], flags["gradient_accumulation_steps"]) == (str(batch), str(micro_batches))
    note = f"note: {used} of {nodes} nodes are used" if used < nodes else ""
    assert note in site.run(**size, **values).stderr


def test_a_micro_batch_grows_nowhere(site):
    """96 sequences over 4 processes, 24 each, in micro-batches of at most 9: three of 8."""
    flags = site.training(SLURM_NTASKS_PER_NODE=4, GLOBAL_BATCH_SIZE=96, BATCHSIZE=18, GRADIENT_STEPS=2)
    assert (flags["train_batch_size"], flags["gradient_accumulation_steps"]) == ("24", "3")


def test_a_restart_keeps_the_global_batch_of_the_first_start(site):
    results = site.root / "results" / "5"
    results.mkdir(parents=True)
    (results / ".global_batch_of_job_5").write_text("65536\n")
    values = {"SLURM_JOB_ID": 5, "SLURM_JOB_NUM_NODES": 2, "SLURM_NTASKS_PER_NODE": 8, "BATCHSIZE": 2048}
    assert site.training(**values, GRADIENT_STEPS=128)["train_batch_size"] == "2048"
    again = site.training(**values, GRADIENT_STEPS=128, SLURM_RESTART_COUNT=1)
    assert (again["train_batch_size"], again["gradient_accumulation_steps"]) == ("4096", "256")


def test_shards_that_are_missing_are_prepared_on_one_node(site):
    (site.root / "shards 128" / "shard-0.parquet").unlink()
    (site.root / "texts").mkdir()
    values = {"text_source": site.root / "texts", "DASK_TASKS_PER_NODE": 3, "MASKING": "dynamic"}
    preparing, training = site.commands(**FOUR_NODES, **values)
    assert preparing[:4] == ["srun", "--nodes=1", "--ntasks=1", "--ntasks-per-node=1"]
    assert {f"--text={site.root / 'texts'}", "--num-blocks=4096", "--local-n-workers=3"} < set(preparing)
    assert "--masking" not in preparing
    assert "--nodes=4" in training
    assert "and RERUN_DASK=false" in site.refused(RERUN_DASK="false")


def test_each_process_has_cores_of_its_own(site):
    flags = site.training(SLURM_NTASKS_PER_NODE=8, SLURM_CPUS_ON_NODE=128)
    assert (flags["cpus-per-task"], flags["cpu-bind"]) == ("16", "cores")
    assert site.training(SLURM_NTASKS_PER_NODE=8, SLURM_CPUS_ON_NODE=128, CPU_BIND="none")["cpu-bind"] == "none"
    assert "cpu-bind" not in site.training(SLURM_NTASKS_PER_NODE=8, SLURM_CPUS_ON_NODE=4)  # fewer cores than processes


def test_containers(site):
    """pyxis where srun has it, else Apptainer, else a note; without an image none of them."""
    site.add_command("srun", "--container=path of an OCI bundle")
    assert f"{sys.executable} {ROOT}/run_pretraining.py" in " ".join(site.commands()[-1])
    result = site.run(docker_image="nvcr.io#me/bert:1")
    assert "note: docker_image=nvcr.io#me/bert:1 is not used: neither pyxis nor Apptainer is here" in result.stderr

    site.add_command("apptainer")
    words = site.commands(docker_image="nvcr.io#me/bert:1", PYTHON="")[-1]
    mounts = f"{ROOT}:{ROOT},{site.root}:{site.root}"
    start = words.index(str(site.bin / "apptainer"))
    contained = ["exec", "--nv", "--pwd", str(site.root), "--bind", mounts, "docker://nvcr.io/me/bert:1", "python3"]
    assert words[start + 1 : start + 9] == contained
    assert "docker://nvcr.io/nvidia/pytorch:26.01-py3" in site.commands(IMAGE_VERSION="26.01-py3")[-1]

    site.add_command("srun", "--container-image=[USER@][REGISTRY#]IMAGE[:TAG]|PATH")
    flags = site.training(docker_image="nvcr.io#me/bert:1")
    assert (flags["container-image"], flags["container-workdir"]) == ("nvcr.io#me/bert:1", str(site.root))
    assert flags["container-mounts"] == mounts
    outside = {"checkpointdir": "/checks/new", "datadir": site.root.parent / "data" / "new", "RERUN_DASK": "false"}
    result = site.run(docker_image="nvcr.io#me/bert:1", **outside)
    assert f"{site.root.parent}/data:{site.root.parent}/data" in result.stdout  # the job will make both
    assert "/checks/new:/checks/new" in result.stdout
    odd = site.root.parent / "a,b"
    odd.mkdir()
    line = site.refused(docker_image="x", text_source=odd)
    assert line == f"{odd}: a container cannot be given a path with , or : in it"


REFUSALS = [
    ({"PHASE": "3"}, "PHASE=3: expected 1 or 2"),
    ({"BATCHSIZE": "many"}, "BATCHSIZE=many: expected a whole number from 1"),
    ({"GRADIENT_STEPS": "0"}, "GRADIENT_STEPS=0: expected a whole number from 1"),
    ({"LR": "fast"}, "LR=fast: expected a number such as 6e-3"),
    ({"LEARNING_RATE": "6e"}, "LEARNING_RATE=6e: expected a number"),
    ({"WARMUP_UPDATES": "2000"}, "WARMUP_UPDATES=2000: expected a number from 0 to 1"),
    ({"PRECISION": "fp8"}, "PRECISION=fp8: expected fp16, fp32, tf32 or bf16"),
    ({"STEPS_THIS_RUN": "x"}, "STEPS_THIS_RUN=x: expected a whole number from 1, or none"),
    ({"BIN_SIZE": "100"}, "BIN_SIZE=100: expected none, 32, 64"),
    ({"DRY_RUN": "yes"}, "DRY_RUN=yes: expected 0 or 1"),
    ({"BATCHSIZE": "1", "TRAIN_BATCH_SIZE": "2"}, "TRAIN_BATCH_SIZE=2 and BATCHSIZE=1 are two spellings of one value"),
    ({"LR": "1", "LEARNING_RATE": "2"}, "LEARNING_RATE=2 and LR=1 are two spellings of one value"),
    ({"datadir": "/a", "DATA_DIR_PHASE1": "/b"}, "DATA_DIR_PHASE1=/b and datadir=/a are two spellings of one value"),
    ({"BATCHSIZE": "10", "GRADIENT_STEPS": "3"}, "TRAIN_BATCH_SIZE=10: not divisible by GRADIENT_ACCUMULATION_STEPS=3"),
    ({"GLOBAL_BATCH_SIZE": "9"}, "GLOBAL_BATCH_SIZE=9: not divisible by the 8 tasks of a node"),
    ({"CODEDIR": "/nowhere"}, "CODEDIR=/nowhere: it has no scripts/phases.sh"),
    ({"CONFIG": "huge"}, "bert_configs/huge.json: no such file"),
    ({"VOCAB_FILE": "/nowhere.txt"}, "vocab_file=/nowhere.txt: no such file"),
    ({"INIT_CHECKPOINT": "/nowhere.pt"}, "init_checkpoint=/nowhere.pt: no such file"),
    ({"datadir": "/nowhere"}, "DATA_DIR_PHASE1=/nowhere: no shards there, and wikipedia_source="),
]


@pytest.mark.parametrize(("variables", "message"), REFUSALS, ids=[message[:40] for _, message in REFUSALS])
def test_refusals(site, variables, message):
    assert message in site.refused(**variables)
    assert not (site.root / "results").exists()


def test_outside_of_a_job_nothing_starts(site):
    assert site.refused(DRY_RUN=0) == "not in a job: sbatch run.sub, or DRY_RUN=1 bash run.sub"
    assert not (site.root / "results").exists()
