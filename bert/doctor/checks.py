"""Judges what was found: pure functions from facts to rows of the table, so that tests can make up the facts."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

OK, WARNING, ERROR = "ok", "warning", "ERROR"
GIB = 1 << 30
OLDEST_PYTHON, OLDEST_TORCH, TOO_NEW_TORCH = (3, 11), (2, 11), (2, 14)
REQUIRED = ("numpy", "h5py", "pyarrow", "crc32c", "sentencex", "tokenizers", "tqdm")  # beside torch
OPTIONAL = (  # name, module, what to say if it is installed, what serves otherwise
    ("apex", "apex.optimizers", "NVIDIA's", "--optimizer lamb"),
    ("dllogger", "dllogger", "NVIDIA's", "the built-in log has the same lines"),
    ("lddl", "lddl", "installed", "data/preprocess.py"),
)
MAX_SKEW = 1.0  # seconds

Skew = tuple[float, float] | str  # (seconds ahead of this machine's clock, uncertainty), or what went wrong


@dataclass(frozen=True)
class Finding:
    """A row of the table. ``cost`` says what the finding costs or what to do; empty if all is well."""

    what: str
    found: str
    state: str = OK
    cost: str = ""


@dataclass(frozen=True)
class Torch:
    """What PyTorch reports of itself; gathered in one place so that tests can make it up."""

    version: str
    cuda: str | None  # the version it was built for
    gpus: tuple[str, ...]
    nccl: str | None


def check_python(version: tuple[int, ...]) -> Finding:
    text = ".".join(map(str, version[:3]))
    if version[:2] < OLDEST_PYTHON:
        return Finding("Python", text, ERROR, "too old: install 3.11 or later")
    return Finding("Python", f"{text}, {sys.executable}")


def check_packages(version_of: Callable[[str], str | None]) -> Finding:
    missing = [name for name in REQUIRED if version_of(name) is None]
    if missing:
        return Finding("packages", f"missing: {', '.join(missing)}", ERROR, "run bash scripts/setup.sh")
    return Finding("packages", ", ".join(f"{name} {version_of(name)}" for name in REQUIRED[:3]) + ", ...")


def check_torch(torch: Torch | str) -> Finding:
    if isinstance(torch, str):
        return Finding("torch", torch, ERROR, "run bash scripts/setup.sh")
    version = tuple(int(part) for part in torch.version.split(".")[:2])
    if version < OLDEST_TORCH or version >= TOO_NEW_TORCH:
        return Finding("torch", torch.version, WARNING, "not tested: expected 2.11 to 2.13")
    return Finding("torch", torch.version)


def check_gpus(torch: Torch | str, listed: list[str]) -> list[Finding]:
    """Check CUDA, GPUs and NCCL; ``listed`` are the GPUs that nvidia-smi names."""
    if isinstance(torch, str):
        found = "; ".join(listed) or "none"
        return [Finding("GPUs", found, WARNING, "not usable without torch")]
    if not torch.gpus:
        if listed:
            why = "its build has no CUDA" if torch.cuda is None else f"is its CUDA {torch.cuda} too new for the driver?"
            return [Finding("GPUs", "; ".join(listed), WARNING, f"torch cannot use them ({why}): runs on the CPU")]
        return [Finding("GPUs", "none", WARNING, "training runs on the CPU, hundreds of times slower")]
    counted = "; ".join(f"{count} x {name}" for name, count in Counter(torch.gpus).items())
    rows = [Finding("CUDA", torch.cuda or "?"), Finding("GPUs", counted)]
    return [*rows, Finding("NCCL", torch.nccl)] if torch.nccl else rows


def check_optional(torch: Torch | str, has: Callable[[str], bool]) -> list[Finding]:
    """Look for optional packages."""
    rows = [
        Finding(name, found) if has(module) else Finding(name, "none", OK, f"not needed: {instead}")
        for name, module, found, instead in OPTIONAL
    ]
    if not isinstance(torch, str) and torch.gpus:
        slow = Finding("triton", "none", WARNING, "no torch.compile, no fused LAMB: slower on the GPU")
        rows.append(Finding("triton", "installed") if has("triton.language") else slow)
    return rows


def check_compiler(environ: Mapping[str, str], which: Callable[[str], str | None]) -> Finding:
    name = environ.get("CXX", "g++")
    path = which(name)
    if path is None:
        cost = "no torch.compile on the CPU: 10 to 30 % slower (apt install g++)"
        return Finding("C++ compiler", f"no {name}", WARNING, cost)
    return Finding("C++ compiler", path)


def check_shared_memory(free: int | None, gpus: int) -> Finding:
    """Check for ``free`` bytes in /dev/shm, None if there is none."""
    if free is None:
        return Finding("shared memory", "no /dev/shm", WARNING if gpus > 1 else OK, "NCCL uses slower transports")
    small = gpus > 1 and free < GIB
    cost = "NCCL between GPUs of a machine may fail: --ipc=host or --shm-size=8g (scripts/docker/launch.sh)"
    return Finding("shared memory", f"{free / GIB:.1f} GiB free", WARNING if small else OK, cost if small else "")


def check_disk(directory: Path, free: int, writable: bool) -> Finding:
    found = f"{free / GIB:.0f} GiB free at {directory}"
    if not writable:
        return Finding("disk", found, ERROR, "not writable: give another --output_dir")
    if free < GIB:
        return Finding("disk", found, ERROR, "no room for a checkpoint")
    if free < 20 * GIB:
        return Finding("disk", found, WARNING, "BERT-large needs 20 GiB: five checkpoints of 4 GiB, one being written")
    return Finding("disk", found)


def check_open_files(limit: int) -> Finding:
    if limit < 1024:
        return Finding("open files", f"{limit}", WARNING, "loading many shards may fail: ulimit -n 4096")
    return Finding("open files", f"{limit}")


def check_clocks(skews: Mapping[str, Skew]) -> list[Finding]:
    """Judge the clock skews, given by host."""
    rows = []
    for host, skew in skews.items():
        what = f"clock of {host}"
        if isinstance(skew, str):
            rows.append(Finding(what, skew, WARNING, "not compared"))
        else:
            late = abs(skew[0]) > MAX_SKEW + skew[1]
            cost = "logs do not line up; a requeued run may prune the wrong checkpoint: set up NTP" if late else ""
            rows.append(Finding(what, f"{skew[0]:+.3f} s ± {skew[1]:.3f} s", WARNING if late else OK, cost))
    return rows
