"""One block of text → its shards: what a worker does, a pure function of the plan and the block's number.

The shards of block N are ``part.N.parquet`` (or ``part.N.parquet_0``, ``_1``, ... where lengths are binned). Once they
are written, a small record of them appears in ``.preprocess``. A block with a record is done; one without is processed
from the beginning, with the same bytes::

    record = make_shards(plan, 3)       # {"documents": 412, "shards": {"part.3.parquet": {...}}}
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from bert.config import flag
from bert.data.formats.table import Shard, write_shard
from bert.data.manifest import describe_shard
from bert.data.shard import select
from bert.errors import UsageError, naming_os_errors
from bert.files import replacing
from bert.prepare.cluster import ClusterConfig
from bert.prepare.masks import MaskConfig, mask_shard
from bert.prepare.pairs import PairConfig, assemble, draw_pairs
from bert.prepare.text.blocks import Block
from bert.prepare.text.sources import SourceConfig, read_block
from bert.prepare.tokens import DocumentEncoder, Tokens, join
from bert.tokenization import TokenizerFlags

RECORDS = ".preprocess"  # folder in the sink, removed when all blocks are done


@dataclass
class PreprocessConfig:
    """What to read, how to cut it, what to write and where to work."""

    sink: str = flag(help="Folder for the shards and their manifest. An interrupted run in it is resumed.")
    vocab_file: str = flag(help="WordPiece vocabulary, one piece a line, or a folder with a tokenizer.")
    output_format: str = flag(
        "parquet", "parquet (LDDL's), hdf5 (NVIDIA's) or tfrecord (Google's).", choices=["parquet", "hdf5", "tfrecord"]
    )
    block_size: str | None = flag(
        None, "Bytes of text in a block, and so in a shard, such as 512K, 4M or 1G. Default: 4M."
    )
    num_blocks: int | None = flag(None, "Number of blocks; replaces --block_size.", minimum=1)
    bin_size: int | None = flag(
        None,
        "Sort sequences into files by length, in bins of this many pieces, a divisor of --target_seq_length. Parquet "
        "only.",
        minimum=1,
    )
    sample_ratio: float = flag(1.0, "Share of the documents to use.", minimum=0.0, maximum=1.0)
    seed: int = flag(12345, "Seed of sampling, pairs, masks and order; the same seed gives the same bytes.", minimum=0)
    disable_progress_bar: bool = flag(False, "Show no progress bars.")
    sources: SourceConfig = field(default_factory=SourceConfig)
    pairs: PairConfig = field(default_factory=PairConfig)
    masks: MaskConfig = field(default_factory=MaskConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    tokenizer: TokenizerFlags = field(default_factory=TokenizerFlags)


@dataclass(frozen=True)
class ShardPlan:
    """Everything that a worker needs, sent once to each; there, ``encode`` remembers words from block to block."""

    config: PreprocessConfig
    sink: Path  # absolute
    blocks: list[Block]
    encode: DocumentEncoder
    max_predictions: int


@dataclass
class Record:
    """The result of a block."""

    index: int
    documents: int
    sentences: int
    unknown: int  # pieces of the text that are [UNK]
    pieces: int  # of the text, once
    shards: dict[str, dict[str, Any]]  # file name → entry of the manifest
    invalid: dict[str, int] = field(default_factory=dict)  # characters passed over, by file


def make_shards(plan: ShardPlan, index: int) -> Record:
    """Write the shards of block ``index`` and its record. Raises UsageError naming what is wrong with the text."""
    invalid: Counter[str] = Counter()
    own = plan.encode(_read_documents(plan, index, invalid))
    unknown = int((own.ids == plan.encode.tokenizer.unk_id).sum())
    record = Record(index, own.num_documents, len(own.sentences) - 1, unknown, len(own.ids), {}, dict(invalid))
    if own.num_documents:
        tokens = own if own.num_documents > 1 else join([own, _partners(plan, index)])
        record.shards = _write(plan, index, _sequences(plan, index, tokens, own.num_documents))
    path = plan.sink / RECORDS / f"part.{index}.json"
    with naming_os_errors(f"--sink {path}"), replacing(path) as temporary:
        temporary.write_text(json.dumps(dataclasses.asdict(record)), encoding="utf8")
    return record


def read_records(sink: Path) -> list[Record]:
    """Return the records of the blocks whose shards are all there, by number."""
    records = []
    sizes = {path.name: path.stat().st_size for path in sink.glob("part.*")}
    for path in (sink / RECORDS).glob("part.*.json"):
        record = Record(**json.loads(path.read_text(encoding="utf8")))
        if all(sizes.get(name) == entry["bytes"] for name, entry in record.shards.items()):
            records.append(record)
    return sorted(records, key=lambda record: record.index)


def _read_documents(plan: ShardPlan, index: int, invalid: Counter[str]) -> list[list[str]]:
    """Read the documents of a block that belong to the sample."""
    documents = read_block(plan.blocks[index], plan.config.sources, invalid)
    if plan.config.sample_ratio < 1:
        rng = Random(f"{plan.config.seed} sample {index}")
        documents = [document for document in documents if rng.random() < plan.config.sample_ratio]
    return documents


def _partners(plan: ShardPlan, index: int) -> Tokens:
    """Return documents for the one document of block ``index`` to be paired with.

    They come from the nearest later block that has any, starting over at the first block after the last.
    """
    origin = plan.blocks[index].origin
    for step in range(1, len(plan.blocks)):
        other = (index + step) % len(plan.blocks)
        if plan.blocks[other].origin == origin and other != origin:
            continue  # more of the same document
        documents = _read_documents(plan, other, Counter())  # counted by its own block
        found = plan.encode(documents[:-1] if other == origin else documents)
        if found.num_documents:
            return found
    raise UsageError(
        "the sources hold one document, expected at least two: random next sentences come from another one; put blank "
        "lines between documents, or try --documents line or file"
    )


def _sequences(plan: ShardPlan, index: int, tokens: Tokens, own: int) -> Shard:
    """Draw the pairs of the first ``own`` documents, and masks if they are static."""
    config, tokenizer = plan.config, plan.encode.tokenizer
    pairs = draw_pairs(tokens, config.pairs, f"{config.seed} pairs {index}", own)
    shard = assemble(pairs, tokens.ids, tokenizer.cls_id, tokenizer.sep_id)
    if not config.masks.masking:
        return shard
    draw = np.random.default_rng([config.seed, index])
    ratio, whole_words = config.masks.masked_lm_ratio, config.masks.whole_word_masking
    return mask_shard(shard, ratio, plan.max_predictions, tokenizer, draw, whole_words)


def _write(plan: ShardPlan, index: int, shard: Shard) -> dict[str, dict[str, Any]]:
    """Write a shard, or one for each bin of lengths; return their entries for the manifest."""
    longest, bin_size = plan.config.pairs.target_seq_length, plan.config.bin_size
    name = f"part.{index}.{plan.config.output_format}"
    parts = {name: shard}
    if bin_size:
        bins = np.minimum((shard.lengths - 1) // bin_size, longest // bin_size - 1)
        parts = {f"{name}_{b}": select(shard, np.flatnonzero(bins == b)) for b in np.unique(bins)}
    for name, part in parts.items():
        write_shard(plan.sink / name, part, longest, plan.max_predictions, plan.encode.tokenizer.vocab)
    return {name: dataclasses.asdict(describe_shard(plan.sink / name)) for name in parts}
