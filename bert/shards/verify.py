"""Are the shards intact and fit to train on? The command ``data/verify.py``.

Every shard is examined by itself, on all cores (:mod:`bert.shards.checks`); then all are judged together. Shares may
differ by the stated tolerance and four standard deviations, so chance alone causes no problem::

    is_well = verify(VerifyConfig("shards_128", vocab_file="vocab.txt"))
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from math import sqrt
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from bert.config import flag
from bert.data.formats.table import SWAP, find_shards
from bert.data.manifest import MANIFEST, Manifest, check_tokenizer, read_manifest
from bert.errors import UsageError
from bert.shards.bins import bin_of, natural
from bert.shards.checks import Findings, Rules, Subject, examine, is_readable
from bert.shards.pool import run_parallel
from bert.shards.replace import staging
from bert.tokenization import Stated, TokenizerFlags, open_tokenizer

RANDOM_SHARE, RANDOM_TOLERANCE = 0.5, 0.15  # of sequences whose second segment is random
MASKED_TOLERANCE = 0.1  # masked tokens, relative to what the ratio gives
AS_MASK_SHARE, AS_MASK_TOLERANCE = 0.8, 0.05  # of masked tokens that became [MASK]
DUPLICATES, UNMASKED_DUPLICATES = 0.01, 0.2  # shares of sequences
DOUBLED = 0.5  # share of a shard's sequences that have a copy
DEVIATIONS = 4


@dataclass
class VerifyConfig:
    """What to verify. Flags whose values a manifest records may be left out."""

    indir: str = flag(help="Folder of shards, searched recursively.")
    vocab_file: str | None = flag(
        None,
        "Vocabulary of the shards; needed to read Parquet, and to check special tokens in other formats.",
    )
    max_seq_length: int | None = flag(None, "Longest sequence allowed, in tokens; by default the manifest's.")
    max_predictions_per_seq: int | None = flag(None, "Most masked tokens in a sequence; by default the manifest's.")
    masked_lm_ratio: float | None = flag(None, "Share of masked tokens; by default the manifest's, or 0.15.")
    bin_size: int | None = flag(None, "Step of lengths from bin to bin; by default the manifest's.", minimum=1)
    max_duplicates: float | None = flag(
        None,
        "Largest share of sequences that may be exact copies of another, masks included. By default 0.01, or 0.2 for "
        "shards without masks: several passes over short documents then give equal pairs.",
        minimum=0,
        maximum=1,
    )
    num_workers: int = flag(0, "Processes that read shards; 0 = one per core.", minimum=0)
    disable_progress_bar: bool = flag(False, "Show no progress bars.")


class Verdict:
    """The report as it grows: a table of numbers, and what is wrong."""

    def __init__(self, root: Path):
        self.root = root
        self.table: list[str] = []
        self.problems: list[str] = []

    def note(self, what: str, value: str, expected: str = "") -> None:
        self.table.append(f"{what:<16}{value}" + (f"  (expected: {expected})" if expected else ""))

    def complain(self, path: Path | None, problem: str) -> None:
        self.problems.append(f"{path.relative_to(self.root) if path else 'all shards'}: {problem}")

    def show(self) -> None:
        count = len(self.problems)
        summary = f"{count} problem{'s' * (count > 1)}" if count else "all is well"
        print(*self.table, *self.problems, summary, sep="\n")


def verify(config: VerifyConfig) -> bool:
    """Examine, print the report, and tell whether there was no problem; raises UsageError where a flag is wrong."""
    root = Path(config.indir)
    if not root.is_dir():
        raise UsageError(f"--indir {root}: expected a folder")
    if (root / SWAP).exists():
        try:
            with staging(root) as completed:
                if completed is not None:
                    print(f"{root}: completed an interrupted data/balance.py")
        except OSError as error:
            raise UsageError(f"{root}: data/balance.py was interrupted here; completing it: {error}") from error
    verdict = Verdict(root)
    subjects = _choose_subjects(config, root, verdict)
    show = not config.disable_progress_bar
    found = list(run_parallel(examine, subjects, config.num_workers, description="Verifying", show=show))
    for each in found:
        for problem in each.problems:
            verdict.complain(each.path, problem)
    _judge(found, config.max_duplicates, verdict)
    unlisted = sum(subject.listed is None for subject in subjects)
    if unlisted:
        verdict.note("SHA-256", f"unknown for {unlisted} of {len(subjects)} shards, which no {MANIFEST} lists")
    unread = sum(not is_readable(subject.path, subject.rules) for subject in subjects)
    if unread:
        verdict.note("sequences", f"not read in {unread} of {len(subjects)} shards: Parquet needs --vocab_file")
    verdict.show()
    return not verdict.problems


def _choose_subjects(config: VerifyConfig, root: Path, verdict: Verdict) -> list[Subject]:
    """Return what to examine by which rules; complain about shards that are missing or not listed."""
    paths = _find(root)
    manifests: dict[Path, Manifest] = {}
    for folder in sorted({root, *(path.parent for path in paths)}):
        try:
            manifest = read_manifest(folder)
        except UsageError as error:
            verdict.complain(folder / MANIFEST, str(error).partition(": ")[2])
            continue
        if manifest is not None:
            manifests[folder] = manifest
            for name in manifest.missing(folder):
                verdict.complain(folder / name, f"missing, {MANIFEST} lists it")
    last_bin = max((int(bin_of(path) or 0) for path in paths), default=0)
    rules = {folder: _rules(config, folder, manifests.get(folder), last_bin) for folder in {p.parent for p in paths}}
    subjects = []
    for path in paths:
        manifest = manifests.get(path.parent)
        listed = manifest.shards.get(path.name) if manifest else None
        if manifest and not listed:
            verdict.complain(path, f"{MANIFEST} does not list it")
        elif not manifest and not is_readable(path, rules[path.parent]):
            raise UsageError(f"--vocab_file: expected one, since {path} holds text and no {MANIFEST} lists it")
        subjects.append(Subject(path, listed, rules[path.parent]))
    return subjects


def _find(root: Path) -> list[Path]:
    try:
        return sorted(find_shards(root, "--indir"), key=natural)
    except UsageError:
        manifest = read_manifest(root)
        if manifest is None or len(manifest.missing(root)) < len(manifest.shards):
            raise
        return []  # all are missing


def _rules(config: VerifyConfig, folder: Path, manifest: Manifest | None, last_bin: int) -> Rules:
    """Return the flags, completed by the manifest; raises UsageError where --vocab_file is not that of the shards."""
    settings = manifest.settings if manifest else {}
    size = settings.get("vocab_size")
    if config.vocab_file is not None:
        tokenizer = open_tokenizer(config.vocab_file, TokenizerFlags(), [Stated(f"the manifest of {folder}", settings)])
        size = tokenizer.vocab_size
        if manifest is not None:
            check_tokenizer(folder, manifest, tokenizer)

    def known(name: str) -> Any:
        given = getattr(config, name)
        return settings.get(name) if given is None else given

    longest, step = known("max_seq_length"), known("bin_size")
    return Rules(
        config.vocab_file,
        size,
        longest,
        known("max_predictions_per_seq"),
        known("masked_lm_ratio") or 0.15,
        step,
        longest // step - 1 if longest and step else last_bin,
    )


def _judge(found: list[Findings], max_duplicates: float | None, verdict: Verdict) -> None:
    """Compare the shards with each other, and all of them with the expected shares."""
    bins = {bin_of(each.path) for each in found}
    samples, tokens = sum(each.samples for each in found), sum(each.tokens for each in found)
    longest = max((each.longest for each in found), default=0)
    verdict.note("shards", f"{len(found)} in {len(bins)} bins" if bins - {""} else f"{len(found)}")
    verdict.note("samples", f"{samples:,}" + (f", {tokens:,} tokens, the longest of {longest}" if tokens else ""))
    _judge_sizes(found, verdict)
    read = [each for each in found if each.rows]
    if read:
        _judge_kinds(read, verdict)
        _judge_labels(read, verdict)
        _judge_masks([each for each in read if each.is_static], verdict)
        _judge_duplicates(read, max_duplicates, verdict)


def _judge_sizes(found: list[Findings], verdict: Verdict) -> None:
    """Balanced shards of a bin differ by at most one sample; others may differ."""
    largest_gap, balanced = 0, all(re.match(r"shard-[0-9]+\.", each.path.name) for each in found)
    for number in sorted({bin_of(each.path) for each in found}):
        intact = [each for each in found if bin_of(each.path) == number and not each.problems]
        if intact:
            small, large = (choose(intact, key=attrgetter("samples")) for choose in (min, max))
            gap = large.samples - small.samples
            largest_gap = max(largest_gap, gap)
            if balanced and gap > 1:
                than = f"{small.path.name} has {small.samples}: run data/balance.py"
                verdict.complain(large.path, f"{large.samples} samples, {than}")
    verdict.note("sizes", f"differ by {largest_gap}", "at most 1" if balanced else "")


def _judge_kinds(read: list[Findings], verdict: Verdict) -> None:
    kinds = Counter(bool(each.is_static) for each in read)
    common = kinds.most_common(1)[0][0]
    names = {True: "masked", False: "not masked, so masked while loading"}
    verdict.note("masks", "mixed" if len(kinds) > 1 else "static" if common else "dynamic", "one kind")
    for each in read:
        if each.is_static != common:
            verdict.complain(each.path, f"sequences are {names[not common]}, those of most shards are {names[common]}")


def _judge_labels(read: list[Findings], verdict: Verdict) -> None:
    """Half of the second segments are random, and a little more where documents are short."""
    read = [each for each in read if each.labelled]
    if not read:
        verdict.note("next sentence", "no labels")
        return
    rows, random = sum(each.labelled for each in read), sum(each.random for each in read)
    verdict.note("next sentence", f"{random / rows:.1%} random", _range(RANDOM_SHARE, RANDOM_TOLERANCE))
    apart = [each for each in read if _is_off(each.random, each.labelled, RANDOM_SHARE, RANDOM_TOLERANCE)]
    for each in apart if 2 * len(apart) <= len(read) else []:
        verdict.complain(each.path, f"{each.random / each.labelled:.1%} of the next sentences are random")
    if _is_off(random, rows, RANDOM_SHARE, RANDOM_TOLERANCE):
        verdict.complain(None, f"{random / rows:.1%} of the next sentences are random")


def _judge_masks(read: list[Findings], verdict: Verdict) -> None:
    if not read:
        return
    masked = sum(each.masked for each in read)
    ratio = masked / sum(each.wanted for each in read)
    share = f"{masked / sum(each.tokens for each in read):.1%} of tokens, {ratio:.1%} of what the ratio gives"
    verdict.note("masked", share, _range(1, MASKED_TOLERANCE))
    if abs(ratio - 1) > MASKED_TOLERANCE:
        verdict.complain(None, f"masked: {share}")
    known = [each for each in read if each.as_mask is not None and each.masked]
    if known:
        masked, as_mask = sum(each.masked for each in known), sum(each.as_mask or 0 for each in known)
        verdict.note("[MASK]", f"{as_mask / masked:.1%} of masked", _range(AS_MASK_SHARE, AS_MASK_TOLERANCE))
        if _is_off(as_mask, masked, AS_MASK_SHARE, AS_MASK_TOLERANCE):
            verdict.complain(None, f"{as_mask / masked:.1%} of the masked tokens became [MASK]")


def _judge_duplicates(read: list[Findings], allowed: float | None, verdict: Verdict) -> None:
    """Count sequences that have a copy; name the shards that mostly consist of such."""
    if allowed is None:
        allowed = DUPLICATES if all(each.is_static for each in read) else UNMASKED_DUPLICATES
    hashes = np.sort(np.concatenate([part for each in read for part in each.hashes]))
    again = hashes[1:][hashes[1:] == hashes[:-1]]
    share = len(again) / len(hashes)
    verdict.note("duplicates", f"{share:.2%} of sequences", f"at most {allowed:.2%}")
    for each in read if len(again) else []:
        own = np.concatenate(each.hashes)
        places = np.searchsorted(again, own).clip(max=len(again) - 1)
        copies = int((again[places] == own).sum())
        if copies > DOUBLED * len(own):
            verdict.complain(each.path, f"{copies} of its {len(own)} sequences occur more than once")
    if share > allowed:
        verdict.complain(None, f"{share:.2%} of the sequences are copies of another")


def _range(wanted: float, tolerance: float) -> str:
    return f"{wanted - tolerance:.0%} to {wanted + tolerance:.0%}"


def _is_off(count: int, total: int, wanted: float, tolerance: float) -> bool:
    """Tell whether a share is farther from the ``wanted`` one than tolerance and chance explain."""
    deviation = sqrt(wanted * (1 - wanted) / total)
    return abs(count / total - wanted) > tolerance + DEVIATIONS * deviation
