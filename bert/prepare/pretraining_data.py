"""Text files → shards of masked next-sentence pairs: the command ``create_pretraining_data.py``.

A text file holds one sentence a line and a blank line between documents. With ``num_workers`` 0 all files are one
corpus with one stream of random numbers, which reproduces the sequences of the published scripts. Otherwise each file
is a corpus of its own with its own stream, and the output does not depend on the number of workers::

    create_pretraining_data(PretrainingDataConfig(["corpus/"], "train.hdf5", "vocab.txt", num_workers=8))
"""

import multiprocessing
import os
import signal
import sys
from array import array
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from bert import __version__
from bert.config import flag
from bert.data.formats.table import Shard, format_of, write_shard
from bert.data.manifest import add_to_manifest, check_tokenizer, read_manifest
from bert.data.shard import concatenate, select
from bert.errors import UsageError
from bert.lock import owning_output
from bert.log.progress import progress
from bert.prepare.instances import Document, InstanceConfig, make_instances
from bert.prepare.text.characters import report
from bert.prepare.text.extracted import refuse_extracted
from bert.prepare.text.inputs import find_files, prepare_output, read_lines
from bert.prepare.vocabulary import warn_of_unknown
from bert.shards.pool import run_parallel
from bert.tokenization import BertTokenizer, TokenizerFlags, guesses, open_tokenizer


@dataclass
class PretrainingDataConfig:
    """What to read and write; ``instances`` says how to cut and mask."""

    input_file: list[str] = flag(
        help="Text files, patterns or directories searched for .txt files, separated by blanks or commas. "
        "One sentence a line, a blank line between documents."
    )
    output_file: str = flag(
        help="Shard to write (.hdf5 or .parquet), or several separated by commas, which get equal shares."
    )
    vocab_file: str = flag(help="WordPiece vocabulary, one piece a line, or a folder with a tokenizer.")
    random_seed: int = flag(12345, "Seed of the pairs, masks and shuffling.")
    num_workers: int = flag(
        0,
        "Worker processes. 0: all files are one corpus. From 1 on, each file is a corpus of its own, and the output is "
        "the same for any number.",
        minimum=0,
    )
    join_files: bool = flag(
        False,
        "With 0 workers, let a document continue in the next file if no blank line ends the file, as the published "
        "scripts do.",
    )
    disable_progress_bar: bool = flag(False, "Show no progress bars.")
    instances: InstanceConfig = field(default_factory=InstanceConfig)
    tokenizer: TokenizerFlags = field(default_factory=TokenizerFlags)


def create_pretraining_data(config: PretrainingDataConfig) -> None:
    """Read, pair, mask and write; raises :class:`UsageError` where a flag or file is wrong."""
    outputs = _check(config)
    with ExitStack() as held:
        for output in outputs:
            held.enter_context(owning_output(output, f"--output_file {output}"))
        _write_shards(outputs, config)


def _write_shards(outputs: list[Path], config: PretrainingDataConfig) -> None:
    files = find_files(config.input_file, "--input_file")
    for path in files:
        refuse_extracted(path, "--input_file")
    tokenizer = open_tokenizer(config.vocab_file, config.tokenizer)
    for folder in {output.parent for output in outputs}:
        manifest = read_manifest(folder)
        if manifest and manifest.shards.keys() - {output.name for output in outputs}:  # others than those replaced
            check_tokenizer(folder, manifest, tokenizer)
    shard = _build_shard(files, tokenizer, config)
    if shard.num_samples == 0:
        raise UsageError(f"--input_file {' '.join(config.input_file)}: no text in {_count(len(files), 'file')}")
    for turn, output in enumerate(outputs):
        mine = select(shard, np.arange(turn, shard.num_samples, len(outputs)))
        write_shard(
            output, mine, config.instances.max_seq_length, config.instances.max_predictions_per_seq, tokenizer.vocab
        )
        add_to_manifest(output, {"tool": f"bert {__version__}", **tokenizer.identity})
        print(f"{output}: {_count(mine.num_samples, 'sequence')}")
    _report(shard, tokenizer, config.instances.max_seq_length)


def read_documents(
    paths: Sequence[Path], tokenizer: BertTokenizer, bar: Any, join_files: bool = False
) -> list[Document]:
    """Tokenise the documents of ``paths``, without sentences that have no piece and documents that have no sentence.

    ``join_files`` lets a document continue in the next file if no blank line ends it.
    """
    documents: list[Document] = [[]]
    invalid: Counter[str] = Counter()
    for path in paths:
        if not join_files:
            documents.append([])
        for lines in read_lines(path, bar, invalid):
            for line, ids in zip(lines, tokenizer.encode_batch(lines), strict=True):
                if not line:
                    documents.append([])
                elif ids:
                    documents[-1].append(array("i", ids))
    report(invalid)
    return [document for document in documents if document]


def _check(config: PretrainingDataConfig) -> list[Path]:
    """Check the flags against each other and return the output paths."""
    instances = config.instances
    room = instances.max_seq_length - 3
    if instances.max_predictions_per_seq > room:
        raise UsageError(
            f"--max_predictions_per_seq {instances.max_predictions_per_seq}: --max_seq_length "
            f"{instances.max_seq_length} leaves room for {room}"
        )
    if config.join_files and config.num_workers:
        raise UsageError(f"--join_files true: --num_workers {config.num_workers} takes each file by itself, expected 0")
    outputs = [Path(name) for name in config.output_file.split(",") if name]
    if not outputs or len(set(outputs)) < len(outputs):
        raise UsageError(f"--output_file {config.output_file!r}: expected one or more different files")
    for output in outputs:
        format_of(output)
        prepare_output(output, "--output_file")
    return outputs


def _build_shard(files: list[Path], tokenizer: BertTokenizer, config: PretrainingDataConfig) -> Shard:
    if config.num_workers == 0:
        bar = partial(progress, disable=config.disable_progress_bar)
        total = sum(path.stat().st_size for path in files)
        with bar(total=total, description="Tokenising", unit="B") as done:
            documents = read_documents(files, tokenizer, done, config.join_files)
        if len(documents) == 1:
            _warn_of_one_document("the text")
        watch = partial(bar, description="Pairing", unit="document")
        return make_instances(documents, tokenizer, config.instances, Random(config.random_seed), watch)
    tasks = [(index, path, tokenizer, config) for index, path in enumerate(files)]
    show = not config.disable_progress_bar
    found = run_parallel(_shard_of_file, tasks, config.num_workers, description="Pairing", show=show, unit="file")
    shards, counts = zip(*found, strict=True)
    if alone := counts.count(1):
        _warn_of_one_document(f"{alone} of {_count(len(files), 'file')}, each a corpus of its own")
    order = list(range(sum(shard.num_samples for shard in shards)))
    Random(config.random_seed).shuffle(order)
    return select(concatenate(shards), np.array(order, dtype=np.int64))


def _shard_of_file(task: tuple[int, Path, BertTokenizer, PretrainingDataConfig]) -> tuple[Shard, int]:
    """Process one file as a corpus of its own; return its sequences and its number of documents."""
    index, path, tokenizer, config = task
    if multiprocessing.parent_process():
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the workers already take all cores
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends a worker at once: nothing of its file is kept
    documents = read_documents([path], tokenizer, progress(disable=True))
    rng = Random(f"{config.random_seed} {index}")
    return make_instances(documents, tokenizer, config.instances, rng), len(documents)


def _warn_of_one_document(where: str) -> None:
    print(
        f"warning: one document in {where}: no random next sentence can come from another document; "
        "put blank lines between documents",
        file=sys.stderr,
    )


def _report(shard: Shard, tokenizer: BertTokenizer, max_seq_length: int) -> None:
    """Print how full the sequences are, the balance of labels and the share of unknown pieces."""
    length = len(shard.tokens) / shard.num_samples
    unknown = float(np.mean(shard.tokens == tokenizer.unk_id))
    print(
        f"{_count(shard.num_samples, 'sequence')} of {length:.1f} pieces on average "
        f"({length / max_seq_length:.0%} of --max_seq_length), {shard.next_sentence_labels.mean():.0%} random next, "
        f"{unknown:.2%} [UNK]"
    )
    warn_of_unknown(unknown)
    if tokenizer.guessed:
        print(guesses(tokenizer), file=sys.stderr)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
