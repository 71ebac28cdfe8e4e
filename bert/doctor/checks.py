"""Judges what was found: pure functions from facts to rows of the table, so that tests can make up the facts."""

from __future__ import annotations

import sys
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
class Row:
    """One line of the table. ``cost`` says what the finding costs or what to do; empty if all is well."""

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


def check_python(version: tuple[int, ...]) -> Row:
    text = ".".join(map(str, version[:3]))
    if version[:2] < OLDEST_PYTHON:
        return Row("Python", text, ERROR, "too old: install 3.11 or later")
    return Row("Python", f"{text}, {sys.executable}")


def check_packages(version_of: Callable[[str], str | None]) -> Row:
    missing = [name for name in REQUIRED if version_of(name) is None]
    if missing:
        return Row("packages", f"missing: {', '.join(missing)}", ERROR, "run bash scripts/setup.sh")
    return Row("packages", ", ".join(f"{name} {version_of(name)}" for name in REQUIRED[:3]) + ", ...")


def check_torch(torch: Torch | str) -> Row:
    if isinstance(torch, str):
        return Row("torch", torch, ERROR, "run bash scripts/setup.sh")
    version = tuple(int(part) for part in torch.version.split(".")[:2])
    if version < OLDEST_TORCH or version >= TOO_NEW_TORCH:
        return Row("torch", torch.version, WARNING, "not tested: expected 2.11 to 2.13")
    return Row("torch", torch.version)


def check_gpus(torch: Torch | str, listed: list[str]) -> list[Row]:
    """Check CUDA, GPUs and NCCL; ``listed`` are the GPUs that nvidia-smi names."""
    if isinstance(torch, str):
        found = "; ".join(listed) or "none"
        return [Row("GPUs", found, WARNING, "not usable without torch")]
    if not torch.gpus:
        if listed:
            why = "its build has no CUDA" if torch.cuda is None else f"is its CUDA {torch.cuda} too new for the driver?"
            return [Row("GPUs", "; ".join(listed), WARNING, f"torch cannot use them ({why}): runs on the CPU")]
        return [Row("GPUs", "none", WARNING, "training runs on the CPU, hundreds of times slower")]
    rows = [Row("CUDA", torch.cuda or "?"), Row("GPUs", _counted(torch.gpus))]
    return [*rows, Row("NCCL", torch.nccl)] if torch.nccl else rows


def check_optional(torch: Torch | str, has: Callable[[str], bool]) -> list[Row]:
    """Look for optional packages."""
    rows = [
        Row(name, found) if has(module) else Row(name, "none", OK, f"not needed: {instead}")
        for name, module, found, instead in OPTIONAL
    ]
    if not isinstance(torch, str) and torch.gpus:
        slow = Row("triton", "none", WARNING, "no torch.compile, no fused LAMB: slower on the GPU")
        rows.append(Row("triton", "installed") if has("triton") else slow)
    return rows


def check_compiler(environ: Mapping[str, str], which: Callable[[str], str | None]) -> Row:
    name = environ.get("CXX", "g++")
    path = which(name)
    if path is None:
        return Row(
            "C++ compiler", f"no {name}", WARNING, "no torch.compile on the CPU: 10 to 30 % slower (apt install g++)"
        )
    return Row("C++ compiler", path)


def check_shared_memory(free: int | None, gpus: int) -> Row:
    """Check for ``free`` bytes in /dev/shm, None if there is none."""
    if free is None:
        return Row("shared memory", "no /dev/shm", WARNING if gpus > 1 else OK, "NCCL falls back to slower transports")
    small = gpus > 1 and free < GIB
    cost = "NCCL between GPUs of a machine may fail: --ipc=host or --shm-size=8g (scripts/docker/launch.sh)"
    return Row("shared memory", f"{free / GIB:.1f} GiB free", WARNING if small else OK, cost if small else "")


def check_disk(directory: Path, free: int, writable: bool) -> Row:
    found = f"{free / GIB:.0f} GiB free at {directory}"
    if not writable:
        return Row("disk", found, ERROR, "not writable: give another --output_dir")
    if free < GIB:
        return Row("disk", found, ERROR, "no room for a checkpoint")
    if free < 20 * GIB:
        return Row("disk", found, WARNING, "BERT-large needs 20 GiB: four checkpoints of 4 GiB and one being written")
    return Row("disk", found)


def check_open_files(limit: int) -> Row:
    if limit < 1024:
        return Row("open files", f"{limit}", WARNING, "loading many shards may fail: ulimit -n 4096")
    return Row("open files", f"{limit}")


def check_clocks(skews: Mapping[str, Skew]) -> list[Row]:
    """Judge the clock skews, given by host."""
    rows = []
    for host, skew in skews.items():
        what = f"clock of {host}"
        if isinstance(skew, str):
            rows.append(Row(what, skew, WARNING, "not compared"))
        else:
            late = abs(skew[0]) > MAX_SKEW + skew[1]
            cost = "logs do not line up; a requeued run may prune the wrong checkpoint: set up NTP" if late else ""
            rows.append(Row(what, f"{skew[0]:+.3f} s ± {skew[1]:.3f} s", WARNING if late else OK, cost))
    return rows


def _counted(names: tuple[str, ...]) -> str:
    return "; ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))
