"""Shards of any sizes → the same samples in shards of one size: the command ``data/balance.py``.

The files of a bin are laid end to end, part.2 before part.10, and shard i of N takes the rows from i·n/N to
(i + 1)·n/N. So sizes differ by at most one, the same input gives the same bytes, and one pass is enough. Nothing is
decoded. :mod:`bert.shards.replace` swaps the files, and no sample is lost whatever ends the process::

    balance(BalanceConfig("shards_128", num_shards=4096))
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bert.config import flag
from bert.data.formats.table import SWAP, find_shards, splice_shards
from bert.data.manifest import MANIFEST, Manifest, ShardEntry, describe_shard, read_manifest, write_manifest
from bert.data.shard import RowRange
from bert.errors import UsageError
from bert.files import files_below
from bert.shards.bins import Bin, bin_of, cut, find_bins, usable
from bert.shards.pool import run_parallel
from bert.shards.replace import NEW, staging, swap
from bert.tokenization.opening import SETTINGS

COUNTS = ".num_samples.json"  # {"shard-0.parquet": 42315, ...}: saves LDDL's loader from opening every shard
COMMON = ("vocab_sha256", *SETTINGS, "masking")  # settings that must not differ within a data set


@dataclass
class BalanceConfig:
    """What to balance, into how many shards, and where they go."""

    indir: str = flag(help="Folder of shards, searched recursively.")
    num_shards: int = flag(
        help="Shards to make of every bin. LDDL's loader needs a multiple of its processes over all devices.", minimum=1
    )
    outdir: str | None = flag(None, "Folder for the balanced shards; by default they replace those in --indir.")
    bin_ids: list[int] | None = flag(None, "Numbers of the bins to balance; by default all.")
    keep_orig: bool = flag(
        False, "Keep the shards in --indir; needs --outdir. Otherwise they are removed once the new ones are in place."
    )
    lddl_compatible: bool = flag(
        False, "Leave out one sample where all shards of a bin would be equal, which LDDL's loader refuses."
    )
    num_workers: int = flag(0, "Processes that write shards; 0 = one per core.", minimum=0)
    disable_progress_bar: bool = flag(False, "Show no progress bars.")


@dataclass(frozen=True)
class Plan:
    """Which shards are balanced, and what is known about them."""

    source: Path
    target: Path
    keep: bool  # the originals
    bins: list[Bin]
    manifests: dict[Path, Manifest]  # by folder
    is_listed: bool  # every shard, in a manifest
    settings: dict[str, Any]  # those that all manifests agree on

    @property
    def files(self) -> list[Path]:
        return [path for each in self.bins for path in each.files]


def balance(config: BalanceConfig) -> None:
    """Make the shards and put them in place; raises UsageError where a flag or a file is wrong."""
    source, target = folders(config)
    request = {name: getattr(config, name) for name in ("num_shards", "bin_ids", "lddl_compatible")}
    touched = [target] if config.keep_orig and not (source / SWAP).exists() else [source, target]
    try:
        with staging(*touched) as completed:
            if completed == request:
                print(f"{target}: completed an interrupted run, the shards are balanced")
                return
            plan = build_plan(config, source, target)
            sizes = [usable(each, config.num_shards, config.lddl_compatible) for each in plan.bins]
            check_space(plan)
            entries = make_shards(plan, sizes, config)
            removals = stage_notes(plan, entries)
            swap(target if plan.keep else source, target, removals, request)
    except OSError as error:
        raise UsageError(f"{error.filename or target}: {error.strerror or error}") from error
    report(plan, sizes, entries)


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
        raise UsageError(f"--outdir {target}: expected a folder apart from --indir {source}, searched recursively")
    return source, target


def build_plan(config: BalanceConfig, source: Path, target: Path) -> Plan:
    """Find, count and check; raises UsageError where shards are missing or do not belong together."""
    found = find_shards(source, "--indir")
    bins = find_bins(found, config.bin_ids, not config.disable_progress_bar)
    counts = {path: n for each in bins for path, n in zip(each.files, each.counts, strict=True)}
    read = {folder: read_manifest(folder) for folder in sorted({path.parent for path in found})}
    manifests = {folder: manifest for folder, manifest in read.items() if manifest is not None}
    for folder, manifest in manifests.items():
        _check_against(folder, manifest, {path.name: counts.get(path) for path in found if path.parent == folder})
    every = [manifest.settings for manifest in manifests.values()]
    settings = {k: v for k, v in every[0].items() if all(m.get(k) == v for m in every)} if every else {}
    different = [key for key in COMMON if key not in settings and any(key in m for m in every)]
    if different:
        raise UsageError(f"--indir {source}: shards with different {different[0]}, by their {MANIFEST}")
    plan = Plan(source, target, config.keep_orig, bins, manifests, len(manifests) == len(read), settings)
    _check_links(plan)
    if source == target:
        _check_test_shards(source, found)
    else:
        _check_target(plan)
    return plan


def _check_against(folder: Path, manifest: Manifest, counts: dict[str, int | None]) -> None:
    """Raise UsageError where the shards of a folder, or the numbers of samples, are not those of its manifest."""
    missing = manifest.missing(folder)
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


def _check_links(plan: Plan) -> None:
    """Raise UsageError where shards behind a link to a folder would be removed, or be the balanced ones."""
    source, target = plan.source.resolve(), plan.target.resolve()
    for folder in sorted({path.parent for path in plan.files}):
        real = folder.resolve()
        if not plan.keep and not real.is_relative_to(source):
            raise UsageError(
                f"--indir {plan.source}: {folder} is behind a link; --keep_orig and an --outdir leave it as it is"
            )
        if source != target and real.is_relative_to(target):
            raise UsageError(f"--outdir {plan.target}: expected a folder apart from --indir, which links to it")


def _check_test_shards(folder: Path, found: list[Path]) -> None:
    """Raise UsageError where test shards, which only names tell from training shards, would mix with balanced ones."""
    tables = files_below(folder, lambda name: name.endswith((".hdf5", ".h5")), notice=lambda line: None)
    apart = set(tables) - set(found)
    if apart:
        raise UsageError(f"{min(apart)}: a test shard, which could not be told from balanced ones; give an --outdir")


def _check_target(plan: Plan) -> None:
    """Raise UsageError where the new shards would replace, or mix with, others in another folder."""
    try:
        present = find_shards(plan.target)
    except UsageError:
        return
    numbers = {each.number for each in plan.bins}
    same = [path for path in present if bin_of(path) in numbers or not bin_of(path)]
    if same:
        raise UsageError(f"--outdir {plan.target}: holds {same[0].name} already, expected an empty folder")
    manifest = read_manifest(plan.target)
    if plan.is_listed != (manifest is not None) or (manifest and manifest.settings != plan.settings):
        raise UsageError(f"--outdir {plan.target}: holds shards with other settings, by {MANIFEST}")


def check_space(plan: Plan) -> None:
    """Raise UsageError where the disk has no room for the new shards beside the old."""
    needed, free = sum(path.stat().st_size for path in plan.files), shutil.disk_usage(plan.target).free
    if free < needed:
        raise UsageError(f"{plan.target}: {free / 1e9:.1f} GB are free, the balanced shards need {needed / 1e9:.1f}")


def make_shards(plan: Plan, sizes: Sequence[int], config: BalanceConfig) -> dict[str, ShardEntry]:
    """Stage the new shards; return their entries of a manifest."""
    cuts = [cut(each, size, config.num_shards) for each, size in zip(plan.bins, sizes, strict=True)]
    tasks = [(plan.target / NEW / name, parts) for made in cuts for name, parts in made]
    show = not config.disable_progress_bar
    return dict(run_parallel(_make_shard, tasks, config.num_workers, description="Balancing", show=show))


def _make_shard(task: tuple[Path, list[RowRange]]) -> tuple[str, ShardEntry]:
    path, parts = task
    splice_shards(path, parts)
    return path.name, describe_shard(path)


def stage_notes(plan: Plan, entries: dict[str, ShardEntry]) -> list[Path]:
    """Stage the manifests and counts that fit the swapped folders; return the files to remove."""
    gone = set() if plan.keep else set(plan.files)
    folders = sorted({path.parent for path in gone})
    for folder in {plan.target, *folders}:
        is_home = folder == plan.target
        root, manifest = plan.target if is_home else plan.source, read_manifest(folder)
        shards = {name: e for name, e in manifest.shards.items() if folder / name not in gone} if manifest else {}
        settings = manifest.settings if manifest else {}
        if is_home and plan.is_listed:
            shards, settings = shards | entries, plan.settings
        if shards:
            staged = root / NEW / folder.relative_to(root)
            staged.mkdir(parents=True, exist_ok=True)
            write_manifest(staged, Manifest(settings, shards))
    counts = {name: n for name, n in _read_counts(plan.target).items() if plan.target / name not in gone}
    counts |= {name: entry.num_samples for name, entry in entries.items()}
    (plan.target / NEW / COUNTS).write_text(json.dumps(counts), encoding="utf8")
    return [*sorted(gone), *(folder / name for folder in folders for name in (COUNTS, MANIFEST))]


def _read_counts(folder: Path) -> dict[str, int]:
    """Return the counts of the files that exist."""
    try:
        found = json.loads((folder / COUNTS).read_text(encoding="utf8"))
        return {name: count for name, count in found.items() if (folder / name).is_file()}
    except (OSError, ValueError, AttributeError):
        return {}  # LDDL's loader then counts by itself


def report(plan: Plan, sizes: Sequence[int], entries: dict[str, ShardEntry]) -> None:
    """Print what was made of each bin."""
    for each, size in zip(plan.bins, sizes, strict=True):
        counts = [entry.num_samples for name, entry in entries.items() if bin_of(Path(name)) == each.number]
        dropped = "; one sample left out for LDDL's loader" if size < each.total else ""
        print(f"{each}: {size:,} samples in {len(counts)} shards of {min(counts):,} to {max(counts):,}{dropped}")
    if not plan.is_listed:
        print(f"no {MANIFEST} in {plan.source}, so none for the balanced shards")
