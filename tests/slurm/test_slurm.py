"""run.sub in a real Slurm of two nodes: two phases, a time limit, a lost node, a container's options. On the CPU."""

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
import torch
from slurm.conftest import ROOT, Project
from slurm.lab import Lab, until

from bert.checkpoint.files import load

RUN_SUB = ROOT / "run.sub"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # Slurm looks at time limits twice a minute
TWO_NODES = ("-N2", "--ntasks-per-node=1")
STEPS = {"TRAIN_STEPS": 60, "SAVE_CHECKPOINT_STEPS": 10}


def checkpoint(project: Project, job: str, step: int) -> dict:
    return load(project.root / "results" / job / f"ckpt_{step}.pt")


def running(needle: str) -> list[int]:
    """Return the ids of the training processes whose command line holds ``needle``."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_text()
        except OSError:
            continue  # it ended meanwhile
        if needle in command and "run_pretraining.py\0" in command and not command.startswith(("srun", "/bin/bash")):
            found.append(int(folder.name))
    return found


def first_steps(results: Path) -> list[int]:
    """Return the step that each start of the training went on from."""
    lines = (results / "dllogger.json").read_text().splitlines()
    facts = [json.loads(line.removeprefix("DLLL ")).get("data") or {} for line in lines]
    return [data["checkpoint_step"] for data in facts if "checkpoint_step" in data]


@pytest.fixture(scope="module")
def uninterrupted(lab: Lab, project: Project) -> str:
    """The job of a phase 1 that nothing happened to; it has prepared the shards."""
    job = lab.submit(RUN_SUB, *TWO_NODES, cwd=project.root, **project.variables(PHASE=1, **STEPS))
    assert lab.wait(job) == "COMPLETED", project.log(job)
    return job


def test_phase_2_follows_phase_1_by_dependency(lab, project, uninterrupted):
    assert (project.root / "shards 128" / "manifest.json").exists()
    variables = project.variables(PHASE=2, TRAIN_STEPS=4, LR="1e-3", GRADIENT_STEPS=4)
    job = lab.submit(RUN_SUB, *TWO_NODES, f"--dependency=afterok:{uninterrupted}", cwd=project.root, **variables)
    assert lab.wait(job) == "COMPLETED", project.log(job)
    end = checkpoint(project, uninterrupted, 64)
    assert (end["phase"], end["offset"], end["training"]["step"]) == (2, 60, 4)
    assert end["geometry"] == {"micro": 1, "accumulation": 4, "world": 2}
    assert (end["flags"]["learning_rate"], end["flags"]["max_seq_length"]) == (1e-3, 512)


def test_a_time_limit_in_the_middle_changes_nothing(lab, project, uninterrupted):
    """The processes are held at a step between two checkpoints until Slurm's warning has come, on any slow machine."""
    limit = ("--time=60", "--signal=B:USR1@60")
    job = lab.submit(RUN_SUB, *TWO_NODES, *limit, cwd=project.root, **project.variables(PHASE=1, **STEPS))
    variables = project.variables(PHASE=2, TRAIN_STEPS=2)
    after = lab.submit(RUN_SUB, *TWO_NODES, f"--dependency=afterok:{job}", cwd=project.root, **variables)
    results = project.root / "results" / job
    until(lambda: any(results.glob("ckpt_*.pt")), "a checkpoint", lambda: project.log(job))
    held = running(str(results))
    try:
        assert len(held) == 2
        for process in held:
            os.kill(process, signal.SIGSTOP)
        minutes = (lab.seconds(job) + 90) // 60  # it ends in 30 to 90 s
        lab.run("scontrol", "update", f"jobid={job}", f"timelimit={minutes}")
        until(lambda: "the time limit is near" in project.log(job), "Slurm's signal", lambda: project.log(job))
    finally:
        for process in held:
            os.kill(process, signal.SIGCONT)
    until(lambda: lab.job(job)["Restarts"] == "1", "the requeue", lambda: project.log(job))
    lab.run("scontrol", "update", f"jobid={job}", "timelimit=60")
    until(lambda: project.log(job).count("# phase 1\n") == 2, "the second start", lambda: project.log(job))
    lab.run("scancel", "--batch", "--signal=USR1", job)  # long before there is anything to save
    assert lab.wait(job) == "COMPLETED", project.log(job)
    assert lab.job(job)["Restarts"] == "2"
    assert re.findall("requeued: start (.)", project.log(job)) == ["2", "3"]
    first, second = first_steps(results)
    assert first == 0
    assert 10 <= second < 60
    ours, theirs = checkpoint(project, job, 60), checkpoint(project, uninterrupted, 60)
    assert ours["training"] == theirs["training"]
    for name, tensor in theirs["model"].items():
        assert torch.equal(ours["model"][name], tensor), name

    assert lab.wait(after) == "COMPLETED", project.log(after)  # after the whole of phase 1, not after its first start
    assert checkpoint(project, job, 62)["offset"] == 60


def test_after_the_loss_of_a_node_the_other_one_goes_on(lab, project, uninterrupted):
    until(lab.is_idle, "two idle nodes")  # or it would start with one
    job = lab.submit(RUN_SUB, "-N1-2", cwd=project.root, **project.variables(PHASE=1, GPUS=1, **STEPS))
    results = project.root / "results" / job
    try:
        until(lambda: any(results.glob("ckpt_*.pt")), "a checkpoint", lambda: project.log(job))
        lab.run("scontrol", "update", "nodename=node2", "state=down", "reason=test")
        assert lab.wait(job) == "COMPLETED", project.log(job)
    finally:
        lab.run("scontrol", "update", "nodename=node2", "state=resume")
    assert (lab.job(job)["NodeList"], lab.job(job)["Restarts"]) == ("node1", "1")
    ours, theirs = checkpoint(project, job, 60), checkpoint(project, uninterrupted, 60)
    assert theirs["geometry"] == {"micro": 2, "accumulation": 2, "world": 2}
    assert ours["geometry"] == {"micro": 2, "accumulation": 4, "world": 1}
    assert ours["training"] == theirs["training"]  # the same samples in the same steps
    for name, tensor in theirs["model"].items():
        torch.testing.assert_close(ours["model"][name], tensor, rtol=1e-3, atol=1e-4)


def test_with_the_options_of_pyxis(lab, project, uninterrupted, tmp_path):
    record, plugin = tmp_path / "options", tmp_path / "pyxis.so"
    source = Path(__file__).with_name("pyxis_stub.c")
    build = ["gcc", "-shared", "-fPIC", f'-DRECORD="{record}"', "-o", str(plugin), str(source)]
    subprocess.run(build, check=True)
    plugins = lab.root / "plugstack.conf"
    plugins.write_text(f"required {plugin}\n")
    try:
        variables = project.variables(PHASE=1, TRAIN_STEPS=2, docker_image="registry#me/bert:1")
        job = lab.submit(RUN_SUB, *TWO_NODES, cwd=project.root, **variables)
        assert lab.wait(job) == "COMPLETED", project.log(job)
    finally:
        plugins.write_text("")
    assert checkpoint(project, job, 2)["geometry"]["world"] == 2
    image, mounts, workdir = sorted(set(record.read_text().splitlines()))
    assert image == "--container-image=registry#me/bert:1"
    assert workdir == f"--container-workdir={project.root}"
    assert mounts == f"--container-mounts={ROOT}:{ROOT},{project.root}:{project.root}"


def test_after_the_death_of_a_process_the_job_goes_on(lab, project, uninterrupted):
    job = lab.submit(RUN_SUB, *TWO_NODES, cwd=project.root, **project.variables(PHASE=1, **STEPS))
    results = project.root / "results" / job
    until(lambda: any(results.glob("ckpt_*.pt")), "a checkpoint", lambda: project.log(job))
    os.kill(running(str(results))[0], signal.SIGKILL)
    assert lab.wait(job) == "COMPLETED", project.log(job)
    assert lab.job(job)["Restarts"] == "1"
    ours, theirs = checkpoint(project, job, 60), checkpoint(project, uninterrupted, 60)
    for name, tensor in theirs["model"].items():
        assert torch.equal(ours["model"][name], tensor), name


def test_an_error_of_the_training_ends_the_job(lab, project, uninterrupted):
    """It is not started again: nothing was saved since its start, so the next one would end as this one did."""
    variables = project.variables(PHASE=2, TRAIN_STEPS=2, checkpointdir=project.root / "results" / uninterrupted)
    job = lab.submit(RUN_SUB, *TWO_NODES, cwd=project.root, **{**variables, "CONFIG": ROOT / "bert_configs/small.json"})
    assert lab.wait(job) == "FAILED"
    assert "vocab_size" in project.log(job)
    assert lab.job(job)["Restarts"] == "0"
