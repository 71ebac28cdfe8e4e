"""Check a machine before a run: one table of what it has, what it lacks, and what that costs.

    bash scripts/doctor.sh
    bash scripts/doctor.sh --output_dir /scratch/results --hosts node2 node3      # also compares clocks, over ssh
    torchrun --nnodes=2 --nproc_per_node=1 ... -m bert.doctor                      # compares the clocks of the ranks

Exits with code 1 if training could not start. Needs only Python, so it can report what else is missing.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import resource
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from bert.config import flag, run_command
from bert.doctor import checks
from bert.doctor.checks import ERROR, GIB, Finding, Torch
from bert.doctor.clocks import skew_over_ssh, skews_of_ranks


@dataclass
class DoctorConfig:
    output_dir: str = flag("results", "Directory for checkpoints, whose disk is checked.")
    hosts: list[str] | None = flag(None, "Other machines to compare clocks with, over ssh.")


def main(config: DoctorConfig) -> None:
    rows = examine(config)
    launched = "MASTER_ADDR" in os.environ  # as a rank, by torchrun or srun
    if launched and not any(row.what == "torch" and row.state == ERROR for row in rows):
        clocks = skews_of_ranks()
        if clocks is None:  # one table is enough
            return
        rows += checks.check_clocks(clocks)
    print(format_table(rows))
    failed = [row.what for row in rows if row.state == ERROR]
    print(f"\ntraining cannot start here: {', '.join(failed)}" if failed else "\ntraining can start here")
    if failed:
        sys.exit(1)


def examine(config: DoctorConfig) -> list[Finding]:
    """Check this machine."""
    torch = probe_torch()
    gpus = 0 if isinstance(torch, str) else len(torch.gpus)
    wanted = Path(config.output_dir).absolute()
    directory = next(each for each in (wanted, *wanted.parents) if each.is_dir())  # new files will be on its disk
    shared = Path("/dev/shm")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return [
        Finding("machine", f"{socket.gethostname()}, {platform.system()} {platform.machine()}, {cores} CPU cores"),
        checks.check_python(sys.version_info[:3]),
        checks.check_packages(_version),
        checks.check_torch(torch),
        *checks.check_gpus(torch, _listed_gpus()),
        *checks.check_optional(torch, _has),
        checks.check_compiler(os.environ, shutil.which),
        checks.check_shared_memory(shutil.disk_usage(shared).free if shared.is_dir() else None, gpus),
        checks.check_disk(directory, shutil.disk_usage(directory).free, os.access(directory, os.W_OK)),
        checks.check_open_files(resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
        *checks.check_clocks({host: skew_over_ssh(host) for host in config.hosts or []}),
    ]


def probe_torch() -> Torch | str:
    """Import PyTorch and return what it reports; on failure, the reason."""
    try:
        import torch
        from torch.cuda import nccl

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        devices = [torch.cuda.get_device_properties(index) for index in range(count)]
        gpus = tuple(f"{each.name}, {each.total_memory / GIB:.0f} GiB" for each in devices)
        nccl_version = ".".join(map(str, nccl.version())) if gpus else None
        return Torch(torch.__version__, torch.version.cuda, gpus, nccl_version)
    except Exception as error:  # a broken installation raises nearly anything
        return f"{type(error).__name__}: {error}".splitlines()[0]


def format_table(rows: list[Finding]) -> str:
    """Lay the rows out in columns."""
    cells = [("what", "found", "state", "what that costs"), *((r.what, r.found, r.state, r.cost) for r in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(3)]
    return "\n".join("  ".join([*(row[i].ljust(widths[i]) for i in range(3)), row[3]]).rstrip() for row in cells)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _has(module: str) -> bool:
    """Tell whether a module is installed, without importing it (its parent packages are imported)."""
    try:
        return sys.modules.get(module, True) is not None and importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _listed_gpus() -> list[str]:
    try:
        command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.splitlines()
    except (OSError, subprocess.TimeoutExpired):
        return []


if __name__ == "__main__":
    run_command(main, DoctorConfig)
