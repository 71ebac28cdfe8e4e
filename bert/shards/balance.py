"""Shards of any sizes → the same samples in shards of one size: the command ``data/balance.py``.

The files of a bin are laid end to end, part.2 before part.10, and shard i takes the rows from i·n/N to (i + 1)·n/N: so
sizes differ by at most one, the same input gives the same bytes, and one pass does it. Nothing is decoded. The folders
change at once, by :mod:`bert.shards.replace`, and no sample is lost whatever ends the process::

    balance(BalanceConfig("shards_128", num_shards=4096))
"""

from __future__ import annotations

import json
import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bert.config import flag
from bert.data.formats.table import find_shards, splice_shards
from bert.data.manifest import MANIFEST, Manifest, ShardEntry, describe_shard, read_manifest, write_manifest
from bert.errors import UsageError
from bert.shards.bins import Bin, Pieces, bin_of, cut, find_bins, usable
from bert.shards.pool import run_parallel
from bert.shards.replace import Journal, commit, finish, staging

COUNTS = ".num_samples.json"  # {"shard-0.parquet": 42315, ...}: spares LDDL's loader to open every shard
ONE_WORLD = ("vocab_sha256", "do_lower_case", "masking")  # settings that must not differ within a data set


@dataclass
class BalanceConfig:
    """What to balance, into how many shards, and where they go."""

    indir: str = flag(help="Folder of shards, searched whole.")
    num_shards: int = flag(
        help="Shards to make of every bin. LDDL's loader wants a multiple of its processes over all devices.", minimum=1
    )
    outdir: str | None = flag(None, "Folder for the balanced shards; by default they replace those in --indir.")
    bin_ids: list[int] | None = flag(None, "Numbers of the bins to balance; by default all.")
    keep_orig: bool = flag(
        False, "Keep the shards in --indir; needs --outdir. Otherwise they are removed once the new ones are there."
    )
    lddl_compatible: bool = flag(
        False, "Leave out one sample where all shards of a bin would be equal, which LDDL's loader refuses."
    )
    num_workers: int = flag(0, "Processes that write shards; 0 = one per core.", minimum=0)
    disable_progress_bar: bool = flag(False, "Show no progress bars.")


@dataclass(frozen=True)
class Job:
    """Where the shards are, where they go, and which of them."""

    source: Path
    target: Path
    keep: bool  # the originals
    bins: list[Bin]
    manifests: dict[Path, Manifest]  # by folder
    is_listed: bool  # every shard, in a manifest
    settings: dict[str, Any]  # that all manifests agree in

    @property
    def files(self) -> list[Path]:
        return [path for each in self.bins for path in each.files]


def balance(config: BalanceConfig) -> None:
    """Make the shards and put them in place; raises UsageError where a flag or a file is wrong."""
    source, target = folders(config)
    request = {name: getattr(config, name) for name in ("num_shards", "bin_ids", "lddl_compatible")}
    try:
        done = [folder for folder in dict.fromkeys((target, source)) if finish(folder) == request]
        if done:
            print(f"{target}: balanced; what was interrupted is completed")
            return
        job = plan(config, source, target)
        sizes = [usable(each, config.num_shards, config.lddl_compatible) for each in job.bins]
        check_space(job)
        entries = _replace(job, sizes, config, request)
    except OSError as error:
        raise UsageError(f"{error.filename or target}: {error.strerror or error}") from error
    _report(job, sizes, entries)


def folders(config: BalanceConfig) -> tuple[Path, Path]:
    """Return where the shards are and where they go; raises UsageError unless that is one folder or two apart."""
    source = Path(config.indir)
    if not source.is_dir():
        raise UsageError(f"--indir {source}: expected a folder")
    target = source if config.outdir is None else Path(config.outdir)
    one, other = source.resolve(), target.resolve()
    if one == other:
        if config.keep_orig:
            raise UsageError(f"--keep_orig: {source} cannot hold both, expected another folder as --outdir")
        return source, source
    if one.is_relative_to(other) or other.is_relative_to(one):
        raise UsageError(f"--outdir {target}: expected a folder apart from --indir {source}, which is searched whole")
    return source, target


def plan(config: BalanceConfig, source: Path, target: Path) -> Job:
    """Find, count and check; raises UsageError where the shards are not all there or do not belong together."""
    found = find_shards(source, "--indir")
    bins = find_bins(found, config.bin_ids, not config.disable_progress_bar)
    counts = {path: n for each in bins for path, n in zip(each.files, each.counts, strict=True)}
    read = {folder: read_manifest(folder) for folder in sorted({path.parent for path in found})}
    manifests = {folder: manifest for folder, manifest in read.items() if manifest is not None}
    for folder, manifest in manifests.items():
        _check_against(folder, manifest, {path.name: counts.get(path) for path in found if path.parent == folder})
    every = [manifest.settings for manifest in manifests.values()]
    settings = {k: v for k, v in every[0].items() if all(m.get(k) == v for m in every)} if every else {}
    apart = [key for key in ONE_WORLD if key not in settings and any(key in m for m in every)]
    if apart:
        raise UsageError(f"--indir {source}: shards with different {apart[0]}, by their {MANIFEST}")
    job = Job(source, target, config.keep_orig, bins, manifests, len(manifests) == len(read), settings)
    check_target(job, found)
    return job


def _check_against(folder: Path, manifest: Manifest, counts: dict[str, int | None]) -> None:
    """Raise UsageError where a folder holds other shards, or a counted one other numbers, than its manifest says."""
    missing = [name for name in manifest.shards if not (folder / name).is_file()]
    if missing:
        raise UsageError(f"{folder}: no {missing[0]}, which {MANIFEST} lists")
    for name, count in counts.items():
        listed = manifest.shards.get(name)
        if listed is None:
            raise UsageError(f"{folder / name}: not in {MANIFEST}; see data/verify.py")
        if count not in (None, listed.num_samples):
            raise UsageError(
                f"{folder / name}: {count} samples, {MANIFEST} says {listed.num_samples}; see data/verify.py"
            )


def check_target(job: Job, found: list[Path]) -> None:
    """Raise UsageError where the new shards would replace, or mix with, what they are not made of."""
    if job.source == job.target:
        tables = {path for suffix in ("hdf5", "h5") for path in job.source.rglob(f"*.{suffix}")}
        hidden = {path for path in tables if any(part[0] == "." for part in path.relative_to(job.source).parts)}
        apart = tables - hidden - set(found)
        if apart:
            raise UsageError(
                f"{min(apart)}: a test shard, which balanced ones would not be told from; give an --outdir"
            )
        return
    try:
        present = find_shards(job.target)
    except UsageError:
        return
    numbers = {each.number for each in job.bins}
    same = [path for path in present if bin_of(path) in numbers or not bin_of(path)]
    if same:
        raise UsageError(f"--outdir {job.target}: holds {same[0].name} already, expected an empty folder")
    manifest = read_manifest(job.target)
    if job.is_listed != (manifest is not None) or (manifest and manifest.settings != job.settings):
        raise UsageError(f"--outdir {job.target}: holds shards that were made otherwise, by {MANIFEST}")


def check_space(job: Job) -> None:
    """Raise UsageError where the disk has no room for the new shards beside the old."""
    needed = sum(path.stat().st_size for path in job.files)
    parents = [job.target, *job.target.absolute().parents]
    free = shutil.disk_usage(next(path for path in parents if path.exists())).free
    if free < needed:
        raise UsageError(f"{job.target}: {free / 1e9:.1f} GB are free, the balanced shards need {needed / 1e9:.1f}")


def _replace(job: Job, sizes: list[int], config: BalanceConfig, request: dict[str, Any]) -> dict[str, ShardEntry]:
    """Make the new shards in hiding, and then all changes at once; return the entries of the new shards."""
    show = not config.disable_progress_bar
    with ExitStack() as stack:
        staged = stack.enter_context(staging(job.target))
        shards = [cut(each, size, config.num_shards) for each, size in zip(job.bins, sizes, strict=True)]
        tasks = [(staged / name, pieces) for made in shards for name, pieces in made]
        made = run_parallel(_make_shard, tasks, config.num_workers, description="Balancing", show=show)
        entries = dict(made)
        if job.target == job.source:
            moves, removals = _clear(job, staged)
            moves = list(dict.fromkeys([*entries, *moves, *_note(job, entries, staged)]))
            commit(staged, Journal(moves, [name for name in removals if name not in moves], request))
        else:
            journal, following = Journal([*entries, *_note(job, entries, staged)], [], request), None
            if not job.keep:
                hidden = stack.enter_context(staging(job.source))
                following = hidden, Journal(*_clear(job, hidden), request)
            commit(staged, journal, following)
    return entries


def _make_shard(task: tuple[Path, Pieces]) -> tuple[str, ShardEntry]:
    path, pieces = task
    splice_shards(path, pieces)
    return path.name, describe_shard(path)


def _note(job: Job, entries: dict[str, ShardEntry], staged: Path) -> list[str]:
    """Stage the target's new manifest and counts; return their names."""
    gone = {path.name for path in job.files if path.parent == job.target}
    counts = {name: n for name, n in _read_counts(job.target).items() if name not in gone}
    counts |= {name: entry.num_samples for name, entry in entries.items()}
    (staged / COUNTS).write_text(json.dumps(counts), encoding="utf8")
    if not job.is_listed:
        return [COUNTS]
    before = read_manifest(job.target)
    others = {name: entry for name, entry in before.shards.items() if name not in gone} if before else {}
    write_manifest(staged, Manifest(job.settings, others | entries))
    return [COUNTS, MANIFEST]


def _read_counts(folder: Path) -> dict[str, int]:
    """Return the counts of files that are there."""
    try:
        found = json.loads((folder / COUNTS).read_text(encoding="utf8"))
        return {name: count for name, count in found.items() if (folder / name).is_file()}
    except (OSError, ValueError, AttributeError):
        return {}  # LDDL's loader then counts by itself


def _clear(job: Job, staged: Path) -> tuple[list[str], list[str]]:
    """Return what to move in and what to remove where the originals go; stage the manifests of what stays beside."""
    gone = set(job.files)
    moves, removals = [], [path.relative_to(job.source).as_posix() for path in job.files]
    for folder in sorted({path.parent for path in job.files}):
        where = folder.relative_to(job.source)
        removals.append((where / COUNTS).as_posix())
        manifest = job.manifests.get(folder)
        if manifest is None:
            continue
        others = {name: entry for name, entry in manifest.shards.items() if folder / name not in gone}
        if others:
            (staged / where).mkdir(parents=True, exist_ok=True)
            write_manifest(staged / where, Manifest(manifest.settings, others))
        (moves if others else removals).append((where / MANIFEST).as_posix())
    return moves, removals


def _report(job: Job, sizes: list[int], entries: dict[str, ShardEntry]) -> None:
    for each, size in zip(job.bins, sizes, strict=True):
        counts = [entry.num_samples for name, entry in entries.items() if bin_of(Path(name)) == each.number]
        dropped = "; one sample left out for LDDL's loader" if size < each.total else ""
        print(f"{each}: {size:,} samples in {len(counts)} shards of {min(counts):,} to {max(counts):,}{dropped}")
    if not job.is_listed:
        print(f"no {MANIFEST} in {job.source}, so none for the balanced shards")
