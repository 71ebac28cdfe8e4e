"""Named pre-training runs from configurations.yml, and the command that starts each.

A job on one node runs scripts/run_pretraining.sh, which runs its phases one after the other. A job on several nodes has
one phase and is submitted to Slurm with run.sub. Nothing here imports torch, so it also runs on a login node::

    jobs = load_jobs("configurations.yml")
    build_launch(jobs["dgx1_4node_phase1"], {"learning_rate": "5e-3"}, root).command      # ["sbatch", "--nodes=4", ...]
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bert.errors import UsageError

# Values of one phase; each phase of a job must have all of them.
PHASE_VALUES = ("train_batch_size", "gradient_accumulation_steps", "learning_rate", "warmup_proportion", "train_steps")
# Values of both phases: names for scripts/run_pretraining.sh, and in capitals variables of run.sub.
SHARED_VALUES = (
    "precision",
    "save_checkpoint_steps",
    "allreduce_post_accumulation",
    "allreduce_post_accumulation_fp16",
    "seed",
    "DATA_DIR_PHASE1",
    "DATA_DIR_PHASE2",
    "init_checkpoint",
    "wikipedia_source",
    "text_source",
    "num_dask_workers",
    "num_shards_per_worker",
    "num_workers",
    "sample_ratio",
    "phase2_bin_size",
    "masking",
    "BERT_CONFIG",
    "vocab_file",
)
SINGLE_VALUES = ("job_name", "resume_training", "create_logfile", "numa_binding")  # only for scripts/run_pretraining.sh
SLURM_VALUES = ("checkpoint_dir", "docker_image", "global_batch_size", "steps_this_run", "cpu_bind")  # only for run.sub
COUNTS = {"nodes": 1, "num_gpus": 0}  # name: smallest value


@dataclass(frozen=True)
class Job:
    """A run: ``values`` of the machine and of both phases, ``phases`` with the values of each phase, all as text."""

    name: str
    nodes: int
    num_gpus: int  # per node; 0: one process on the CPU
    values: Mapping[str, str]
    phases: Mapping[int, Mapping[str, str]]

    def batches(self) -> Iterator[tuple[int, int, int]]:
        """Yield (phase, micro-batch, global batch), in sequences."""
        for phase, values in self.phases.items():
            batch, steps = int(values["train_batch_size"]), int(values["gradient_accumulation_steps"])
            yield phase, batch // steps, batch * self.nodes * max(self.num_gpus, 1)


@dataclass(frozen=True)
class JobLaunch:
    """The command that starts a job and the one for its dry run, each with the environment variables it needs."""

    environment: Mapping[str, str]
    command: list[str]
    dry_environment: Mapping[str, str]
    dry_command: list[str]


def load_jobs(path: str | Path) -> dict[str, Job]:
    """Read the jobs of a file. Raises UsageError naming the file and the faulty job."""
    try:
        import yaml
    except ImportError:
        raise UsageError(
            "PyYAML is missing: pip install pyyaml, or use the environment that scripts/setup.sh makes"
        ) from None
    try:
        content = yaml.safe_load(Path(path).read_bytes())
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror or error}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"--config {path}: not a YAML file ({' '.join(str(error).split())})") from error
    jobs = content.get("jobs") if isinstance(content, dict) else None
    if not isinstance(jobs, dict):
        raise UsageError(f"--config {path}: expected a mapping `jobs` from names to settings")
    return {str(name): _read_job(str(name), job, f"--config {path}: job {name}") for name, job in jobs.items()}


def build_words(job: Job, changes: Mapping[str, str]) -> list[str]:
    """Return the name=value words for scripts/run_pretraining.sh of a job on one node.

    For a job of phase 2 only, ``changes`` may omit the suffix _phase2.
    """
    words = {"num_gpus": str(job.num_gpus), **job.values}
    for phase, values in job.phases.items():
        words |= _named_for(phase, values)
    if len(job.phases) == 1:
        (phase,) = job.phases
        words |= {"phases": str(phase)}
        changes = _named_for(phase, changes)
    return [f"{name}={value}" for name, value in {**words, **changes}.items()]


def build_variables(job: Job, changes: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for run.sub of a job on several nodes. Raises UsageError on an unknown name."""
    (phase,) = job.phases
    known = (*PHASE_VALUES, *SHARED_VALUES, *SLURM_VALUES)
    for name in changes:
        if name not in known:
            raise UsageError(f"{name}={changes[name]}: unknown name, expected one of: {' '.join(known)}")
    values = {name: value for name, value in job.values.items() if name not in SINGLE_VALUES}
    return {"PHASE": str(phase)} | {name.upper(): v for name, v in {**values, **job.phases[phase], **changes}.items()}


def build_launch(job: Job, changes: Mapping[str, str], root: Path, options: Sequence[str] = ()) -> JobLaunch:
    """Return how to start a job; ``changes`` replace its values, ``options`` go to sbatch."""
    if job.nodes == 1:
        if options:
            raise UsageError(f"--sbatch_options: job {job.name} has one node and does not use sbatch")
        command = ["bash", str(root / "scripts" / "run_pretraining.sh"), *build_words(job, changes)]
        return JobLaunch({}, command, {}, [*command, "--dry-run"])
    variables = {"CODEDIR": str(root)} | build_variables(job, changes)
    size = [f"--nodes={job.nodes}", f"--ntasks-per-node={job.num_gpus}", f"--job-name={job.name}"]
    inside = {"SLURM_JOB_NUM_NODES": str(job.nodes), "SLURM_NTASKS_PER_NODE": str(job.num_gpus), "DRY_RUN": "1"}
    script = str(root / "run.sub")
    return JobLaunch(variables, ["sbatch", *size, *options, script], variables | inside, ["bash", script])


def format_jobs(jobs: Mapping[str, Job]) -> str:
    """Return a table of the jobs, one line per phase."""
    head = ("job", "nodes", "GPUs per node", "precision", "phase", "micro-batch", "global batch")
    rows = [
        (job.name, job.nodes, job.num_gpus, job.values.get("precision", ""), phase, micro, whole)
        for job in jobs.values()
        for phase, micro, whole in job.batches()
    ]
    width = max(len(str(row[0])) for row in (head, *rows))
    return "\n".join(f"{row[0]:{width}}" + "".join(f"{cell!s:>14}" for cell in row[1:]) for row in (head, *rows))


def _named_for(phase: int, values: Mapping[str, str]) -> dict[str, str]:
    """Return ``values`` under the names of scripts/run_pretraining.sh."""
    return {name + ("_phase2" if phase == 2 and name in PHASE_VALUES else ""): v for name, v in values.items()}


def _read_job(name: str, settings: Any, where: str) -> Job:
    if not isinstance(settings, dict):
        raise UsageError(f"{where}: expected a mapping of settings")
    settings = dict(settings)
    phases = {n: settings.pop(f"phase{n}") for n in (1, 2) if f"phase{n}" in settings}
    counts = {each: settings.pop(each, low) for each, low in COUNTS.items()}
    for each, low in COUNTS.items():
        if type(counts[each]) is not int or counts[each] < low:
            raise UsageError(f"{where}: {each}: {counts[each]}: expected a whole number from {low}")
    if not phases or (counts["nodes"] > 1 and (len(phases) > 1 or not counts["num_gpus"])):
        raise UsageError(
            f"{where}: expected phase1 or phase2 (both only on one node), and num_gpus if there are several nodes"
        )
    _check_names(settings, (*SHARED_VALUES, *SINGLE_VALUES), where)
    for phase, values in phases.items():
        if not isinstance(values, dict) or set(values) != set(PHASE_VALUES):
            raise UsageError(f"{where}: phase{phase}: expected {', '.join(PHASE_VALUES)}")
    texts = {phase: {each: _text(value) for each, value in values.items()} for phase, values in phases.items()}
    return Job(name, **counts, values={each: _text(value) for each, value in settings.items()}, phases=texts)


def _check_names(settings: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for each in settings:
        if each not in known:
            raise UsageError(f"{where}: {each}: unknown name, expected one of: {' '.join((*COUNTS, *known))}")


def _text(value: Any) -> str:
    """Return a value as the scripts expect it: true and false in lower case; YAML reads 6e-3 as text."""
    return str(value).lower() if isinstance(value, bool) else str(value)
