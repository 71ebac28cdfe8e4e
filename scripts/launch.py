"""Start a pre-training run by its name in configurations.yml.

    python scripts/launch.py --list
    python scripts/launch.py --job dgxa100-80g_8gpu_bf16 text_source=my_texts vocab_file=vocab.txt --dry-run
    python scripts/launch.py --job dgx1_4node_phase2 --sbatch_options="--dependency=afterok:12 --time=8:00:00"

A job on one node runs scripts/run_pretraining.sh here; one on several nodes is submitted to Slurm with run.sub.
name=value words replace values of the job. --dry-run prints every command that would run and starts nothing.
"""

import os
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bert.config import flag, run_command  # noqa: E402
from bert.errors import UsageError  # noqa: E402
from scripts.jobs import Job, JobLaunch, build_launch, build_words, format_jobs, load_jobs  # noqa: E402


@dataclass
class Config:
    config: str = flag(str(ROOT / "configurations.yml"), "YAML file with the jobs.")
    job: str | None = flag(None, "Start this job.")
    preset: str | None = flag(None, "Print this job as name=value words for scripts/run_pretraining.sh.")
    list_jobs: bool = flag(False, "Print a table of the jobs.", aliases=("list",))
    dry_run: bool = flag(False, "With --job: print what would run and start nothing.")
    sbatch_options: str = flag("", 'With --job: more options for sbatch, written as --sbatch_options="...".')
    changes: list[str] | None = flag(
        None, "Values to change in the job, as name=value words; the flag itself can be omitted."
    )


def main(config: Config) -> None:
    jobs = load_jobs(config.config)
    changes = dict(parse_change(word) for word in config.changes or [])
    if config.list_jobs:
        print(format_jobs(jobs))
    elif config.preset:
        print(*build_words(find_job(jobs, "--preset", config.preset), changes))
    elif config.job:
        job = find_job(jobs, "--job", config.job)
        start(job, build_launch(job, changes, ROOT, shlex.split(config.sbatch_options)), config.dry_run)
    else:
        raise UsageError("nothing to do: expected --job NAME, --preset NAME or --list")


def parse_change(word: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if not name or not equals:
        raise UsageError(f"{word}: expected name=value")
    return name, value


def find_job(jobs: dict[str, Job], name_of_flag: str, name: str) -> Job:
    if name not in jobs:
        raise UsageError(f"{name_of_flag} {name}: unknown job, expected one of: {' '.join(jobs)}")
    return jobs[name]


def start(job: Job, launch: JobLaunch, dry_run: bool) -> None:
    """Replace this process by the command or its dry run; a dry run for Slurm first prints the sbatch command."""
    if not dry_run and not shutil.which(launch.command[0]):
        raise UsageError(f"--job {job.name}: {launch.command[0]} was not found; a job on {job.nodes} nodes needs Slurm")
    if dry_run and job.nodes > 1:
        variables = [f"{name}={shlex.quote(value)}" for name, value in launch.environment.items()]
        print("# job", job.name, *variables, shlex.join(launch.command), sep=" ", end="\n\n", flush=True)
    command = launch.dry_command if dry_run else launch.command
    more = launch.dry_environment if dry_run else launch.environment
    os.execvpe(command[0], command, {**os.environ, **more})


def gather_changes(words: list[str]) -> list[str]:
    """Move the name=value words behind --changes."""
    changes = [word for word in words if "=" in word and not word.startswith("-")]
    flags = [word for word in words if word not in changes]
    return [*flags, "--changes", *changes] if changes else flags


if __name__ == "__main__":
    run_command(main, Config, gather_changes(sys.argv[1:]))
