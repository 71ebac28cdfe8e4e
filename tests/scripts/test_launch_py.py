"""scripts/launch.py, and the presets in scripts/configs/pretrain_config.sh, which it prints."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.jobs import build_words, load_jobs

ROOT = Path(__file__).resolve().parents[2]
PRESETS = ROOT / "scripts" / "configs" / "pretrain_config.sh"


def launch(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "launch.py"), *words]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60)


def test_the_list_has_every_job():
    result = launch("--list")
    assert result.returncode == 0, result.stderr
    assert {line.split()[0] for line in result.stdout.splitlines()} == {"job", *load_jobs(ROOT / "configurations.yml")}


def test_torch_is_not_imported():
    code = "import sys; sys.path[:0] = sys.argv[1:]; import launch; assert 'torch' not in sys.modules"
    command = [sys.executable, "-c", code, str(ROOT / "scripts")]
    assert subprocess.run(command, capture_output=True, timeout=60).returncode == 0


def test_a_dry_run_on_several_nodes_prints_the_sbatch_command_and_the_job(tmp_path):
    shards = tmp_path / "my shards"
    shards.mkdir()
    (shards / "shard-0.parquet").write_text("")
    (tmp_path / "vocab.txt").write_text("[PAD]")
    given = (f"DATA_DIR_PHASE1={shards}", f"vocab_file={tmp_path / 'vocab.txt'}")
    result = launch("--job", "dgx1_4node_phase1", *given, "--dry-run", "--sbatch_options=--time=8:00:00 --qos=long")
    assert result.returncode == 0, result.stderr
    first = result.stdout.splitlines()[0]
    assert first.startswith(f"# job dgx1_4node_phase1 CODEDIR={ROOT} PHASE=1 ")
    assert f"DATA_DIR_PHASE1='{shards}'" in first
    assert first.endswith(f"--job-name=dgx1_4node_phase1 --time=8:00:00 --qos=long {ROOT}/run.sub")
    assert "\nsrun --nodes=4 --ntasks=32 --ntasks-per-node=8 " in result.stdout


def test_sbatch_receives_the_job(tmp_path):
    sbatch = tmp_path / "sbatch"
    sbatch.write_text('#!/bin/sh\nprintf "%s\\n" "$@" "$PHASE" "$LEARNING_RATE" "$TEXT_SOURCE"\n')
    sbatch.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    result = launch("--job", "dgx2_64node_phase2", "text_source=my texts", PATH=path)
    size = ["--nodes=64", "--ntasks-per-node=16", "--job-name=dgx2_64node_phase2"]
    assert result.stdout.splitlines() == [*size, f"{ROOT}/run.sub", "2", "4e-3", "my texts"]


REFUSALS = [
    ((), "nothing to do: expected --job NAME, --preset NAME or --list"),
    (("--job", "x"), "--job x: unknown job, expected one of: dgxa100-80g_8gpu_fp16 "),
    (("--preset", "x"), "--preset x: unknown job, expected one of: "),
    (("--config", "/nowhere.yml", "--list"), "--config /nowhere.yml: No such file"),
    (("--job", "dgx1_4node_phase1", "rate=1"), "rate=1: unknown name, expected one of: "),
    (("--job", "cpu_fp32", "--dry-run", "rate=1"), "rate=1: unknown name, expected one of: "),
    (("--job", "cpu_fp32", "--sbatch_options=--time=1"), "--sbatch_options: job cpu_fp32 has one node"),
    (("--job", "cpu_fp32", "--changes", "x"), "x: expected name=value"),
]


@pytest.mark.parametrize(("words", "message"), REFUSALS, ids=[message[:30] for _, message in REFUSALS])
def test_refusals(words, message):
    result = launch(*words)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: {message}")


def test_several_nodes_without_slurm():
    result = launch("--job", "dgx1_4node_phase1", PATH="/nowhere")
    assert result.returncode == 2
    assert result.stderr == "error: --job dgx1_4node_phase1: sbatch was not found; a job on 4 nodes needs Slurm\n"


def test_there_is_a_preset_for_each_job_of_both_phases():
    jobs = load_jobs(ROOT / "configurations.yml")
    both = [name for name, job in jobs.items() if len(job.phases) == 2]
    named = re.findall(r"^(\S+)\(\) \{", PRESETS.read_text(), flags=re.M)
    assert named == both


def test_a_preset_prints_the_words_of_its_job():
    words = build_words(load_jobs(ROOT / "configurations.yml")["8g_1gpu_fp16"], {})
    command = ["bash", "-euc", f"source '{PRESETS}' && 8g_1gpu_fp16"]
    result = subprocess.run(command, env={**os.environ, "PYTHON": sys.executable}, capture_output=True, text=True)
    assert result.stdout.split() == words


def test_a_missing_pyyaml_is_reported_in_one_line(tmp_path):
    (tmp_path / "yaml.py").write_text("raise ImportError\n")
    result = launch("--list", PYTHONPATH=str(tmp_path))
    assert result.returncode == 2
    assert result.stderr.startswith("error: PyYAML is missing: pip install pyyaml")
