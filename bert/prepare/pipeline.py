"""One block of text → its shards: what a worker does, a pure function of the job and the block's number.

The shards of block N are ``part.N.parquet`` (or ``part.N.parquet_0``, ``_1``, ... where lengths are binned); then a
small record of them appears in ``.preprocess``. A block with a record is done; one without is done again from the
beginning, with the same bytes::

    record = make_shards(job, 3)        # {"documents": 412, "shards": {"part.3.parquet": {...}}}
"""

from __future__ import annotations

import dataclasses
import json
import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from bert.data.formats.table import Shard, write_shard
from bert.data.manifest import describe_shard
from bert.data.shard import select
from bert.errors import UsageError
from bert.files import replacing
from bert.prepare.masks import MaskConfig, Vocabulary, mask_shard
from bert.prepare.pairs import PairConfig, assemble, draw_pairs
from bert.prepare.text.sources import Block, SourceConfig, read_block
from bert.prepare.tokens import DocumentEncoder, Tokens, join
from bert.tokenization import BertTokenizer

RECORDS = ".preprocess"  # folder in the sink, gone when all is done


@dataclass(frozen=True)
class Job:
    """Everything that a worker needs to know, sent once to each."""

    key: str  # of this job among others that the same worker has seen
    sink: str
    sources: SourceConfig
    blocks: list[Block]
    tokenizer: dict[str, Any]  # BertTokenizer.state_dict()
    pairs: PairConfig
    masks: MaskConfig
    max_predictions: int
    suffix: str  # of the shards, "parquet" or "hdf5"
    bin_size: int | None
    sample_ratio: float
    seed: int


@dataclass
class Record:
    """What became of a block."""

    index: int
    documents: int
    sentences: int
    unknown: int  # pieces of the text that are [UNK]
    pieces: int  # of the text, once
    shards: dict[str, dict[str, Any]]  # file name → entry of the manifest


def make_shards(job: Job, index: int) -> Record:
    """Write the shards of block ``index`` and its record. Raises UsageError naming what is wrong with the text."""
    tools = _tools(job.key)
    with tools.lock:  # of the words known so far; threads are for waiting on the disk
        tools.prepare(job)
        own = _encode(job, index, tools)
        tokens = own if own.num_documents != 1 else join([own, _partners(job, index, tools)])
    record = Record(
        index,
        own.num_documents,
        len(own.sentences) - 1,
        int((own.ids == tools.tokenizer.unk_id).sum()),
        len(own.ids),
        {},
    )
    if own.num_documents:
        shard = _sequences(job, index, tokens, own.num_documents, tools)
        record.shards = _write(job, index, shard, tools.tokenizer)
    path = record_path(Path(job.sink), index)
    try:
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(dataclasses.asdict(record)), encoding="utf8")
    except OSError as error:
        raise UsageError(f"--sink {path}: {error.strerror or error}") from error
    return record


def record_path(sink: Path, index: int) -> Path:
    """Return where the record of a block is."""
    return sink / RECORDS / f"part.{index}.json"


def read_records(sink: Path) -> list[Record]:
    """Return the records of the blocks whose shards are all there, by number."""
    records = []
    for path in (sink / RECORDS).glob("part.*.json"):
        record = Record(**json.loads(path.read_text(encoding="utf8")))
        if all(_has_size(sink / name, entry["bytes"]) for name, entry in record.shards.items()):
            records.append(record)
    return sorted(records, key=lambda record: record.index)


class _Tools:
    """What a worker keeps from block to block."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.ready = False

    def prepare(self, job: Job) -> None:
        if not self.ready:
            self.tokenizer = BertTokenizer.from_state_dict(job.tokenizer)
            self.encode = DocumentEncoder(self.tokenizer)
            self.vocabulary = Vocabulary.of(self.tokenizer)
            self.ready = True


@lru_cache(maxsize=1)
def _tools(key: str) -> _Tools:
    return _Tools()


def _encode(job: Job, index: int, tools: _Tools) -> Tokens:
    """Read and tokenise the documents of a block that the sample takes."""
    documents = read_block(job.blocks[index], job.sources)
    if job.sample_ratio < 1:
        rng = Random(f"{job.seed} sample {index}")
        documents = [document for document in documents if rng.random() < job.sample_ratio]
    return tools.encode(documents)


def _partners(job: Job, index: int, tools: _Tools) -> Tokens:
    """Return documents of the nearest later block, round the end, that are not the one document of block ``index``."""
    origin = job.blocks[index].origin
    for step in range(1, len(job.blocks)):
        other = (index + step) % len(job.blocks)
        if job.blocks[other].origin == origin and other != origin:
            continue  # more of the same document
        found = _encode(job, other, tools)
        if other == origin:
            found = found.without_last_document()
        if found.num_documents:
            return found
    raise UsageError(
        "the sources hold one document, expected at least two: random next sentences come from another one; put blank "
        "lines between documents, or try --documents line or file"
    )


def _sequences(job: Job, index: int, tokens: Tokens, own: int, tools: _Tools) -> Shard:
    pairs = draw_pairs(tokens, job.pairs, f"{job.seed} pairs {index}", own)
    shard = assemble(pairs, tokens.ids, tools.tokenizer.cls_id, tools.tokenizer.sep_id)
    if not job.masks.masking:
        return shard
    draw = np.random.default_rng([job.seed, index])
    most, whole_words = job.max_predictions, job.masks.whole_word_masking
    return mask_shard(shard, job.masks.masked_lm_ratio, most, tools.vocabulary, draw, whole_words)


def _write(job: Job, index: int, shard: Shard, tokenizer: BertTokenizer) -> dict[str, dict[str, Any]]:
    longest = job.pairs.target_seq_length
    parts = {f"part.{index}.{job.suffix}": shard}
    if job.bin_size:
        bins = np.minimum((shard.lengths - 1) // job.bin_size, longest // job.bin_size - 1)
        parts = {f"part.{index}.{job.suffix}_{b}": select(shard, np.flatnonzero(bins == b)) for b in np.unique(bins)}
    entries = {}
    for name, part in parts.items():
        path = Path(job.sink) / name
        write_shard(path, part, longest, job.max_predictions, tokenizer.vocab)
        entries[name] = dataclasses.asdict(describe_shard(path))
    return entries


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size
