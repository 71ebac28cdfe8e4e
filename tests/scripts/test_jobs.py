"""configurations.yml: each job gives the command of its row in the table, and run_pretraining.py accepts it."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from bert.config import parse_args
from bert.errors import UsageError
from bert.train.batch_geometry import batch_geometry
from run_pretraining import Config
from scripts.jobs import build_launch, build_variables, format_jobs, load_jobs

ROOT = Path(__file__).parents[2]
FILE = ROOT / "configurations.yml"
JOBS = load_jobs(FILE)

# nodes, GPUs per node, then for each phase: sequences per GPU and step, accumulation steps, micro-batch, global batch.
PUBLISHED = {
    "dgxa100-80g_8gpu_fp16": (1, 8, {1: (8192, 32, 256, 65536), 2: (4096, 128, 32, 32768)}),
    "dgxa100-80g_8gpu_bf16": (1, 8, {1: (8192, 32, 256, 65536), 2: (4096, 128, 32, 32768)}),
    "dgxa100-80g_8gpu_tf32": (1, 8, {1: (8192, 64, 128, 65536), 2: (4096, 256, 16, 32768)}),
    "dgx1-32g_8gpu_fp16": (1, 8, {1: (8192, 64, 128, 65536), 2: (4096, 256, 16, 32768)}),
    "dgx1-32g_8gpu_fp32": (1, 8, {1: (8192, 128, 64, 65536), 2: (4096, 512, 8, 32768)}),
    "dgx1-16g_8gpu_fp16": (1, 8, {1: (8192, 512, 16, 65536), 2: (4096, 1024, 4, 32768)}),
    "dgx2-32g_16gpu_fp16": (1, 16, {1: (4096, 64, 64, 65536), 2: (2048, 256, 8, 32768)}),
    "24g_1gpu_bf16": (1, 1, {1: (65536, 1024, 64, 65536), 2: (32768, 4096, 8, 32768)}),
    "8g_1gpu_fp16": (1, 1, {1: (4096, 128, 32, 4096), 2: (2048, 512, 4, 2048)}),
    "cpu_fp32": (1, 0, {1: (256, 8, 32, 256), 2: (64, 8, 8, 64)}),
    "dgx1_1node_phase1": (1, 8, {1: (8192, 512, 16, 65536)}),
    "dgx1_4node_phase1": (4, 8, {1: (2048, 128, 16, 65536)}),
    "dgx1_16node_phase1": (16, 8, {1: (512, 32, 16, 65536)}),
    "dgx2_1node_phase1": (1, 16, {1: (4096, 64, 64, 65536)}),
    "dgx2_4node_phase1": (4, 16, {1: (1024, 16, 64, 65536)}),
    "dgx2_16node_phase1": (16, 16, {1: (256, 4, 64, 65536)}),
    "dgx2_64node_phase1": (64, 16, {1: (64, 1, 64, 65536)}),
    "dgx1_1node_phase2": (1, 8, {2: (4096, 1024, 4, 32768)}),
    "dgx1_4node_phase2": (4, 8, {2: (1024, 256, 4, 32768)}),
    "dgx1_16node_phase2": (16, 8, {2: (256, 64, 4, 32768)}),
    "dgx2_1node_phase2": (1, 16, {2: (2048, 256, 8, 32768)}),
    "dgx2_4node_phase2": (4, 16, {2: (512, 64, 8, 32768)}),
    "dgx2_16node_phase2": (16, 16, {2: (128, 16, 8, 32768)}),
    "dgx2_64node_phase2": (64, 16, {2: (32, 4, 8, 32768)}),
    "dgxa100-80g_4node_phase1": (4, 8, {1: (2048, 8, 256, 65536)}),
    "dgxa100-80g_16node_phase1": (16, 8, {1: (512, 2, 256, 65536)}),
    "dgxa100-80g_32node_phase1": (32, 8, {1: (256, 1, 256, 65536)}),
    "dgxa100-80g_4node_phase2": (4, 8, {2: (1024, 32, 32, 32768)}),
    "dgxa100-80g_16node_phase2": (16, 8, {2: (256, 8, 32, 32768)}),
    "dgxa100-80g_32node_phase2": (32, 8, {2: (128, 4, 32, 32768)}),
}
# sequence length, predictions, steps, learning rate, warm-up
RECIPES = {1: (128, 20, 7038, 6e-3, 0.2843), 2: (512, 80, 1563, 4e-3, 0.128)}
SMALL = ("8g_1gpu_fp16", "cpu_fp32")  # with recipes of their own


@pytest.fixture
def site(tmp_path: Path) -> dict[str, str]:
    """Existing shards and a vocabulary, as name=value words."""
    for name in ("DATA_DIR_PHASE1", "DATA_DIR_PHASE2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "shard-0.parquet").write_text("")
    (tmp_path / "vocab.txt").write_text("[PAD]")
    places = {name: str(tmp_path / name) for name in ("DATA_DIR_PHASE1", "DATA_DIR_PHASE2")}
    return {**places, "vocab_file": str(tmp_path / "vocab.txt")}


def dry_run(name: str, changes: dict[str, str]) -> list[Config]:
    """Return the settings that run_pretraining.py parses from the commands of a job's dry run, phase by phase."""
    launch = build_launch(JOBS[name], changes, ROOT)
    given = {key: value for key, value in os.environ.items() if not key.startswith("SLURM")}
    environment = given | {"PYTHON": sys.executable} | dict(launch.dry_environment)
    there = Path(changes["vocab_file"]).parent
    done = subprocess.run(launch.dry_command, cwd=there, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    lines = [shlex.split(line) for line in done.stdout.splitlines() if f"{ROOT}/run_pretraining.py" in line]
    return [parse_args(Config, line[line.index(f"{ROOT}/run_pretraining.py") + 1 :]) for line in lines]


def test_the_table_names_every_job():
    assert list(JOBS) == list(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_each_job_matches_its_row(name, site):
    nodes, gpus, phases = PUBLISHED[name]
    changes = site | ({"checkpoint_dir": str(Path(site["vocab_file"]).parent)} if nodes > 1 else {})
    configs = dry_run(name, changes)
    assert len(configs) == len(phases)
    for (phase, (batch, accumulation, micro, whole)), config in zip(phases.items(), configs, strict=True):
        assert (config.batch.train_batch_size, config.batch.gradient_accumulation_steps) == (batch, accumulation)
        geometry = batch_geometry(config.batch, nodes * max(gpus, 1))
        assert (geometry.micro, geometry.global_batch) == (micro, whole)
        assert config.phase.phase2 == (phase == 2)
        assert config.data.input_dir == site[f"DATA_DIR_PHASE{phase}"]
        flags = config.precision
        asked = [each for each in ("fp16", "bf16", "tf32") if getattr(flags, each)]
        assert asked == [each for each in (JOBS[name].values["precision"],) if each != "fp32"]
        if name not in SMALL:
            length, predictions = config.data.max_seq_length, config.data.max_predictions_per_seq
            schedule = config.schedule.learning_rate, config.schedule.warmup_proportion
            assert (length, predictions, config.run.max_steps, *schedule) == RECIPES[phase]
            assert config.model.config_file == f"{ROOT}/bert_configs/large.json"


def test_a_job_of_several_nodes_goes_to_sbatch():
    changes = {"learning_rate": "5e-3", "checkpoint_dir": "/my checks"}
    launch = build_launch(JOBS["dgx1_4node_phase2"], changes, Path("/suite"), ["--time=8:00:00"])
    size = ["--nodes=4", "--ntasks-per-node=8", "--job-name=dgx1_4node_phase2"]
    assert launch.command == ["sbatch", *size, "--time=8:00:00", "/suite/run.sub"]
    assert launch.environment == {
        "CODEDIR": "/suite",
        "PHASE": "2",
        "SEED": "42",
        "PRECISION": "fp16",
        "TRAIN_BATCH_SIZE": "1024",
        "GRADIENT_ACCUMULATION_STEPS": "256",
        "LEARNING_RATE": "5e-3",
        "WARMUP_PROPORTION": "0.128",
        "TRAIN_STEPS": "1563",
        "CHECKPOINT_DIR": "/my checks",
    }


def test_a_job_of_one_node_is_a_command_here():
    job = JOBS["dgx1_1node_phase2"]
    launch = build_launch(job, {"seed": "7", "learning_rate": "1e-3"}, Path("/suite"))
    assert launch.command[:2] == ["bash", "/suite/scripts/run_pretraining.sh"]
    assert {"phases=2", "num_gpus=8", "seed=7", "train_batch_size_phase2=4096"} < set(launch.command)
    assert "learning_rate_phase2=1e-3" in launch.command
    assert not [word for word in launch.command if word.startswith("learning_rate=")]
    with pytest.raises(UsageError, match="job dgx1_1node_phase2 has one node"):
        build_launch(job, {}, Path("/suite"), ["--time=1"])


def test_every_name_for_slurm_is_a_variable_of_run_sub(site):
    """run.sub cannot detect an unknown environment variable, so the names are checked earlier."""
    text = (ROOT / "run.sub").read_text()
    for name in build_variables(JOBS["dgx1_4node_phase1"], site | {"docker_image": "x", "cpu_bind": "none"}):
        assert name in ("PHASE",) or f" {name} " in text.replace("|", " ").replace("$suffix", ""), name
    with pytest.raises(UsageError, match="leraning_rate=1: unknown name, expected one of: train_batch_size"):
        build_variables(JOBS["dgx1_4node_phase1"], {"leraning_rate": "1"})


def test_the_table_of_jobs():
    head, first = format_jobs({"cpu_fp32": JOBS["cpu_fp32"]}).splitlines()[:2]
    assert head.split()[:5] == ["job", "nodes", "GPUs", "per", "node"]
    assert first.split() == ["cpu_fp32", "1", "0", "fp32", "1", "32", "256"]


PHASE = "{train_batch_size: 8, gradient_accumulation_steps: 1, learning_rate: 1, warmup_proportion: 0, train_steps: 1}"
BROKEN = [
    ("jobs: [", "not a YAML file"),
    ("jobs: [a]", "expected a mapping `jobs`"),
    ("a", "expected a mapping `jobs`"),
    ("jobs: {a: 3}", "job a: expected a mapping of settings"),
    ("jobs: {a: {nodes: 1}}", "job a: expected phase1 or phase2"),
    (f"jobs: {{a: {{nodes: 0, phase1: {PHASE}}}}}", "job a: nodes: 0: expected a whole number from 1"),
    (f"jobs: {{a: {{num_gpus: true, phase1: {PHASE}}}}}", "job a: num_gpus: True: expected a whole number from 0"),
    (f"jobs: {{a: {{nodes: 2, num_gpus: 1, phase1: {PHASE}, phase2: {PHASE}}}}}", "job a: expected phase1 or phase2"),
    (f"jobs: {{a: {{sead: 1, phase1: {PHASE}}}}}", "job a: sead: unknown name, expected one of: nodes num_gpus"),
    ("jobs: {a: {phase1: {train_steps: 1}}}", "job a: phase1: expected train_batch_size, gradient_accumulation_steps"),
    ("jobs: {a: {<<: *nowhere}}", "not a YAML file"),
]


@pytest.mark.parametrize(("content", "message"), BROKEN, ids=[message for _, message in BROKEN])
def test_a_broken_file_is_refused(tmp_path, content, message):
    path = tmp_path / "jobs.yml"
    path.write_text(content)
    with pytest.raises(UsageError) as error:
        load_jobs(path)
    assert str(error.value).startswith(f"--config {path}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UsageError, match="nowhere.yml: No such file"):
        load_jobs(tmp_path / "nowhere.yml")
