"""Which rows of which files become which shard: the arithmetic of :mod:`bert.shards.balance`.

A bin of 10 samples in files of 7 and 3 becomes 3 shards of 3, 3 and 4::

    shard-0   part.0 0:3
    shard-1   part.0 3:6
    shard-2   part.0 6:7   part.1 0:3
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bert.data.formats.table import FORMATS, OFRECORD, Format, format_of, inspect_shards
from bert.data.shard import RowRange
from bert.errors import UsageError
from bert.log.progress import progress
from bert.ragged import even_part, offsets_of


@dataclass(frozen=True)
class Bin:
    """The files of one bin of lengths, or all files where there are no bins, in their order."""

    number: str  # "" where there are no bins
    files: list[Path]
    counts: list[int]  # samples

    def __str__(self) -> str:
        return f"bin {self.number}" if self.number else str(self.files[0].parent)

    @property
    def total(self) -> int:
        return sum(self.counts)


def bin_of(path: Path) -> str:
    """Return the number of the bin in a file's name, "" where there is none."""
    found = re.search(r"\.parquet_([0-9]+)$", path.name)
    return found[1] if found else ""


def shard_name(kind: Format, index: int, number: str) -> str:
    """Return the name of a balanced shard; OneFlow finds its files by name."""
    if kind == OFRECORD:
        return f"part-{index}"
    pattern = next(pattern for pattern, each in FORMATS.items() if each == kind)  # *.parquet
    return pattern.replace("*", f"shard-{index}") + (f"_{number}" if number else "")


def natural(path: Path) -> list[tuple[int, str]]:
    """Return a key that sorts part.2 before part.10."""
    return [(int(word), "") if word.isdigit() else (-1, word) for word in re.split(r"([0-9]+)", str(path))]


def find_bins(paths: Sequence[Path], wanted: Sequence[int] | None, show: bool) -> list[Bin]:
    """Sort ``paths`` into bins and count the samples of the ``wanted`` ones; None = all.

    Raises UsageError for shards of several formats and for bins that do not exist.
    """
    files: dict[str, list[Path]] = {}
    for path in sorted(paths, key=natural):
        files.setdefault(bin_of(path), []).append(path)
    kinds = {(format_of(path), not bin_of(path)): path for path in paths}
    if len(kinds) > 1:
        one, other = list(kinds.values())[:2]
        raise UsageError(f"{one} and {other.name}: expected shards of one format, all with bins or all without")
    present = sorted(files, key=lambda number: int(number or 0))
    numbers = present if wanted is None else list(dict.fromkeys(map(str, wanted)))
    unknown = [number for number in numbers if number not in files]
    if unknown:
        there = f"bins {' '.join(present)}" if present != [""] else "shards without bins"
        raise UsageError(f"--bin_ids {' '.join(unknown)}: {paths[0].parent} holds {there}")
    chosen = [path for number in numbers for path in files[number]]
    counting = progress(
        inspect_shards(chosen), total=len(chosen), description="Counting", unit="shard", disable=not show
    )
    counts = {path: info.num_samples for path, info in zip(chosen, counting, strict=True)}
    return [Bin(number, files[number], [counts[path] for path in files[number]]) for number in numbers]


def usable(samples: Bin, shards: int, lddl_compatible: bool) -> int:
    """Return how many samples go into the shards; raises UsageError where some would get none.

    LDDL's loader needs some shards to be one sample larger than the others, so one sample is dropped if all are equal.
    """
    if lddl_compatible and shards == 1:
        raise UsageError("--num_shards 1: expected at least 2 with --lddl_compatible, sizes must differ by one")
    total = samples.total - (lddl_compatible and samples.total % shards == 0)
    if total < shards:
        raise UsageError(
            f"--num_shards {shards}: {samples} has {samples.total} samples, expected no more shards than samples"
        )
    return total


def cut(samples: Bin, total: int, shards: int) -> Iterator[tuple[str, list[RowRange]]]:
    """Yield the name and the rows of each of ``shards`` shards of the first ``total`` samples."""
    kind, bounds = format_of(samples.files[0]), offsets_of(samples.counts).tolist()
    for index in range(shards):
        part = even_part(total, index, shards)
        rows = [
            RowRange(samples.files[i], max(part.start - bounds[i], 0), min(part.stop - bounds[i], samples.counts[i]))
            for i in range(bisect_right(bounds, part.start) - 1, bisect_left(bounds, part.stop))
            if samples.counts[i]
        ]
        yield shard_name(kind, index, samples.number), rows
