"""Text → shards of next-sentence pairs with a manifest, on Dask: the command ``data/preprocess.py``.

The sources are cut into blocks by size alone, and every block is processed by itself with its own random numbers. So
the shards depend on the sources and the settings, not on the number of workers; an interrupted run resumes with the
blocks that are not done; and no process holds more than a block::

    preprocess(PreprocessConfig("shards", "vocab.txt", sources=SourceConfig(text=["corpus"])))
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from bert import __version__
from bert.config import load_json, parse_size
from bert.data.manifest import Manifest, ShardEntry, read_manifest, write_manifest
from bert.errors import UsageError, naming_os_errors
from bert.files import replacing
from bert.lock import LOCK, owning
from bert.log.progress import progress
from bert.prepare.cluster import ClusterConfig, connect, memory_bytes, start_ranks
from bert.prepare.masks import default_predictions
from bert.prepare.pairs import SPECIALS
from bert.prepare.pipeline import RECORDS, PreprocessConfig, Record, ShardPlan, make_shards, read_records
from bert.prepare.text.blocks import Block
from bert.prepare.text.characters import report
from bert.prepare.text.sources import plan_blocks
from bert.prepare.tokens import DocumentEncoder
from bert.prepare.vocabulary import warn_of_unknown
from bert.tokenization import BertTokenizer, guesses, open_tokenizer

DEFAULT_BLOCK = 4 << 20  # bytes of text
AHEAD = 3  # blocks handed to the scheduler per worker: always one to continue with, never a million
SHORT_DOCUMENTS = 4  # sentences; documents shorter than that on average are probably paragraphs

# Memory that a worker needs: libraries, and copies of a block as text, pieces and pairs.
WORKER_BYTES, BYTES_PER_BLOCK_BYTE = 200 << 20, 40


def preprocess(config: PreprocessConfig) -> None:
    """Prepare the shards; raises UsageError where a flag, a source or a file is wrong."""
    start_ranks(config.cluster)
    check(config)
    tokenizer = open_tokenizer(config.vocab_file, config.tokenizer)
    sink, show = Path(config.sink), not config.disable_progress_bar
    with owning(sink, f"--sink {sink}"), _work_folder(sink):
        size, number = block_bytes(config), config.num_blocks
        blocks = plan_blocks(config.sources, sink / RECORDS, block_size=size, num_blocks=number, show_progress=show)
        settings = describe(config, tokenizer, blocks)
        if _is_done(sink, settings):
            shutil.rmtree(sink / RECORDS)
            return
        _begin_or_resume(sink, settings)
        records = read_records(sink)
        if records:
            print(f"{sink}: resuming, {len(records)} of {len(blocks)} blocks are done")
        todo = sorted(set(range(len(blocks))) - {record.index for record in records})
        most = settings["max_predictions_per_seq"]
        plan = ShardPlan(config, sink.absolute(), blocks, DocumentEncoder(tokenizer), most)
        bar = progress(total=len(blocks), initial=len(records), description="Preparing", unit="block", disable=not show)
        with bar:
            for record in run(plan, todo, config.cluster):
                records.append(record)
                bar.update()
        _finish(sink, settings, sorted(records, key=lambda record: record.index))
    if tokenizer.guessed:
        print(guesses(tokenizer), file=sys.stderr)


def check(config: PreprocessConfig) -> None:
    """Check the flags against each other."""
    longest, bins = config.pairs.target_seq_length, config.bin_size
    if bins and (longest % bins or config.output_format != "parquet"):
        raise UsageError(
            f"--bin_size {bins}: expected a divisor of --target_seq_length {longest}, and --output_format parquet"
        )
    most, room = config.masks.max_predictions_per_seq, longest - SPECIALS
    if most is not None and not 1 <= most <= room:
        raise UsageError(f"--max_predictions_per_seq {most}: --target_seq_length {longest} leaves room for 1 to {room}")
    if config.output_format == "tfrecord" and not config.masks.masking:
        raise UsageError("--output_format tfrecord: expected --masking, since its readers do not mask")
    size, memory = block_bytes(config) or 0, memory_bytes(config.cluster)
    needed = WORKER_BYTES + size * BYTES_PER_BLOCK_BYTE
    if memory and memory < needed:
        raise UsageError(
            f"--memory_limit {config.cluster.memory_limit}: blocks of {size} bytes need {needed >> 20} MiB; "
            "raise it, or lower --block_size"
        )


def block_bytes(config: PreprocessConfig) -> int | None:
    """Return --block_size in bytes; None where --num_blocks decides."""
    if config.block_size is None:
        return None if config.num_blocks else DEFAULT_BLOCK
    return parse_size(config.block_size, "--block_size")


def describe(config: PreprocessConfig, tokenizer: BertTokenizer, blocks: list[Block]) -> dict[str, Any]:
    """Return the settings for the manifest; ``plan`` is a hash of everything that decides the bytes of the shards."""
    longest, masks = config.pairs.target_seq_length, config.masks
    settings: dict[str, Any] = {
        "tool": f"bert {__version__}",
        "format": config.output_format,
        **tokenizer.identity,
        "documents": config.sources.documents,
        "language": config.sources.language,
        "max_seq_length": longest,
        "max_predictions_per_seq": masks.max_predictions_per_seq or default_predictions(longest, masks.masked_lm_ratio),
        "masking": "static" if masks.masking else "dynamic",
        "masked_lm_ratio": masks.masked_lm_ratio,
        "whole_word_mask": masks.whole_word_masking,
        "short_seq_prob": config.pairs.short_seq_prob,
        "duplicate_factor": config.pairs.duplicate_factor,
        "sample_ratio": config.sample_ratio,
        "seed": config.seed,
        "bin_size": config.bin_size,
        "blocks": len(blocks),
    }
    # Folders may move between two runs, files may not change.
    spans = [[(span.kind, Path(span.path).name, span.start, span.stop) for span in block.spans] for block in blocks]
    settings["plan"] = hashlib.sha256(json.dumps([settings, spans]).encode()).hexdigest()
    return settings


def run(plan: ShardPlan, todo: list[int], config: ClusterConfig) -> Iterator[Record]:
    """Process the blocks ``todo``; yield the record of each when it is done."""
    with connect(config) as client:
        from distributed import KilledWorker, as_completed

        shared = client.scatter(plan, broadcast=True, hash=False)
        tasks = (client.submit(make_shards, shared, index, pure=False) for index in todo)
        under_way = as_completed(list(islice(tasks, AHEAD * sum(client.nthreads().values()))))
        for future in under_way:
            try:
                yield future.result()
            except KilledWorker as error:
                raise UsageError(
                    f"--memory_limit {config.memory_limit}: a block ended {error.allowed_failures + 1} workers, "
                    "probably for lack of memory; lower --block_size, or raise the limit"
                ) from error
            under_way.update(list(islice(tasks, 1)))


def _is_done(sink: Path, settings: dict[str, Any]) -> bool:
    manifest = read_manifest(sink)
    if manifest is None:
        return False
    _expect_same(sink, manifest.settings, settings, "holds the shards of another run")
    print(f"{sink}: already complete, {_total(manifest.shards):,} sequences in {len(manifest.shards)} shards")
    return True


def _begin_or_resume(sink: Path, settings: dict[str, Any]) -> None:
    """Note the settings in the sink, or compare them with those of the run to resume."""
    noted = sink / RECORDS / "settings.json"
    if noted.exists():
        _expect_same(sink, load_json(noted, "--sink"), settings, "holds an unfinished run")
        for left in sink.glob(".*.part.*"):  # half-written shards of the interrupted run
            left.unlink()
        return
    foreign = [path.name for path in sink.iterdir() if path.name not in (RECORDS, LOCK)]
    if foreign:
        raise UsageError(f"--sink {sink}: expected an empty folder, found {sorted(foreign)[0]}")
    with replacing(noted) as temporary:
        temporary.write_text(json.dumps(settings, indent=2), encoding="utf8")


def _expect_same(sink: Path, found: dict[str, Any], wanted: dict[str, Any], what: str) -> None:
    if found.get("plan") == wanted["plan"]:
        return
    different = [key for key in wanted if key != "plan" and found.get(key) != wanted[key]]
    how = f"{different[0]} {found.get(different[0])}, not {wanted[different[0]]}" if different else "other source files"
    raise UsageError(f"--sink {sink} {what} ({how}): expected the same settings, or another folder")


def _finish(sink: Path, settings: dict[str, Any], records: list[Record]) -> None:
    """Write the manifest, remove the records and report."""
    shards = {name: ShardEntry(**entry) for record in records for name, entry in record.shards.items()}
    documents, pieces = (sum(getattr(record, name) for record in records) for name in ("documents", "pieces"))
    if not pieces:
        shutil.rmtree(sink / RECORDS)
        raise UsageError("the sources hold no text")
    write_manifest(sink, Manifest(settings, shards))
    shutil.rmtree(sink / RECORDS)
    unknown = sum(record.unknown for record in records) / pieces
    sentences = sum(record.sentences for record in records) / documents
    print(
        f"{sink}: {_total(shards):,} sequences in {len(shards)} shards from {documents:,} documents of {sentences:.1f} "
        f"sentences, {unknown:.2%} [UNK]"
    )
    warn_of_unknown(unknown)
    report(sum((Counter(record.invalid) for record in records), Counter[str]()))
    if sentences < SHORT_DOCUMENTS and settings["documents"] == "blank":
        print("warning: short documents; are they paragraphs? Try --documents file", file=sys.stderr)


def _total(shards: dict[str, ShardEntry]) -> int:
    return sum(entry.num_samples for entry in shards.values())


@contextmanager
def _work_folder(sink: Path) -> Iterator[None]:
    """Make the folder of records; if an error comes before the first block is done, remove it."""
    with naming_os_errors(f"--sink {sink}"):
        (sink / RECORDS).mkdir(exist_ok=True)
    try:
        yield
    except UsageError:
        if not read_records(sink):
            shutil.rmtree(sink / RECORDS, ignore_errors=True)
        raise
