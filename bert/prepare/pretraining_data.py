"""Text files → shards of masked next-sentence pairs: the command ``create_pretraining_data.py``.

A text file holds one sentence a line and a blank line between documents. With ``num_workers`` 0 all files are one
corpus and one stream of random numbers, as in the published scripts, whose sequences this reproduces; with any other
number each file is a corpus of its own with its own stream, and the output does not depend on the number::

    create_pretraining_data(PretrainingDataConfig(["corpus/"], "train.hdf5", "vocab.txt", num_workers=8))
"""

import io
import multiprocessing
import os
import signal
import sys
import threading
from array import array
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from bert.config import flag
from bert.data.formats.table import Shard, format_of, write_shard
from bert.data.shard import concatenate, select
from bert.errors import UsageError
from bert.log.progress import progress
from bert.prepare.instances import Document, InstanceConfig, make_instances, pieces_of
from bert.prepare.text.inputs import find_files
from bert.tokenization import BertTokenizer

LINES_AT_ONCE = 4096  # enough to keep all cores of the tokenizer busy, little enough to show progress
UNKNOWN_WARNING = 0.05  # share of [UNK] above which vocabulary or casing hardly fit the text


@dataclass
class PretrainingDataConfig:
    """What to read and write; how to cut and mask is ``instances``."""

    input_file: list[str] = flag(
        help="Text files, patterns or directories searched for .txt files; several by blanks or commas. "
        "One sentence a line, a blank line between documents."
    )
    output_file: str = flag(help="Shard to write (.hdf5 or .parquet); of several by commas each gets an equal share.")
    vocab_file: str = flag(help="WordPiece vocabulary, one piece a line.")
    do_lower_case: bool = flag(True, "Lower-case the text and strip accents; false for a cased vocabulary.")
    random_seed: int = flag(12345, "Seed of the pairs, masks and shuffling.")
    num_workers: int = flag(
        0, "Processes, each file by itself, the same output for any number. 0: all files as one corpus.", minimum=0
    )
    join_files: bool = flag(
        False,
        "With 0 workers, let a document go on into the next file where no blank line ends the file, as the published "
        "scripts do.",
    )
    bert_model: str | None = flag(None, "Accepted from older commands; checked against --do_lower_case.")
    disable_progress_bar: bool = flag(False, "Show no progress bars.")
    instances: InstanceConfig = field(default_factory=InstanceConfig)


def create_pretraining_data(config: PretrainingDataConfig) -> None:
    """Read, pair, mask and write; raises :class:`UsageError` before the work where a flag or file is wrong."""
    outputs = _check(config)
    files = find_files(config.input_file, "--input_file")
    tokenizer = BertTokenizer(config.vocab_file, config.do_lower_case)
    shard = _build_shard(files, tokenizer, config)
    if shard.num_samples == 0:
        raise UsageError(f"--input_file {' '.join(config.input_file)}: no text in {_count(len(files), 'file')}")
    for turn, output in enumerate(outputs):
        mine = select(shard, np.arange(turn, shard.num_samples, len(outputs)))
        write_shard(
            output, mine, config.instances.max_seq_length, config.instances.max_predictions_per_seq, tokenizer.vocab
        )
        print(f"{output}: {_count(mine.num_samples, 'sequence')}")
    _report(shard, tokenizer, config.instances.max_seq_length)


def prepare_output(path: Path, flag_name: str) -> None:
    """Make the directory of ``path``; raises :class:`UsageError` before the work if no file can be there."""
    if path.is_dir():
        raise UsageError(f"{flag_name} {path}: is a directory, expected a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{flag_name} {path}: {error.strerror or error}") from error


def read_lines(path: Path, bar: Any, flag_name: str = "--input_file") -> Iterator[list[str]]:
    """Yield the stripped lines of a UTF-8 file, some thousands at a time, and update ``bar`` by bytes read."""
    try:
        with path.open("rb") as raw, io.TextIOWrapper(raw, encoding="utf8") as file:
            seen = 0
            while lines := [line.strip() for line in islice(file, LINES_AT_ONCE)]:
                yield lines
                bar.update(raw.tell() - seen)
                seen = raw.tell()
    except OSError as error:
        raise UsageError(f"{flag_name} {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{flag_name} {path}: not UTF-8 text ({error.reason})") from error


def read_documents(
    paths: Sequence[Path], tokenizer: BertTokenizer, bar: Any, join_files: bool = False
) -> list[Document]:
    """Tokenise the documents of ``paths``; a sentence without a piece and a document without a sentence are left out.

    ``join_files`` lets a document go on into the next file where no blank line ends it.
    """
    documents: list[Document] = [[]]
    for path in paths:
        if not join_files:
            documents.append([])
        for lines in read_lines(path, bar):
            for line, ids in zip(lines, tokenizer.encode_batch(lines), strict=True):
                if not line:
                    documents.append([])
                elif ids:
                    documents[-1].append(array("i", ids))
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
    if config.do_lower_case and "-cased" in (config.bert_model or ""):
        raise UsageError(f"--do_lower_case true: --bert_model {config.bert_model} expected --do_lower_case=false")
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
    bar = partial(progress, disable=config.disable_progress_bar)
    if config.num_workers == 0:
        total = sum(path.stat().st_size for path in files)
        with bar(total=total, description="Tokenising", unit="B") as done:
            documents = read_documents(files, tokenizer, done, config.join_files)
        if len(documents) == 1:
            _warn_of_one_document("the text")
        watch = partial(bar, description="Pairing", unit="document")
        return make_instances(documents, pieces_of(tokenizer), config.instances, Random(config.random_seed), watch)
    tasks = [(index, path, tokenizer.state_dict(), config) for index, path in enumerate(files)]
    with bar(total=len(files), description="Pairing", unit="file") as done:
        shards, alone = [], 0
        for shard, documents_read in _map(config.num_workers, tasks):
            shards.append(shard)
            alone += documents_read == 1
            done.update()
    if alone:
        _warn_of_one_document(f"{alone} of {_count(len(files), 'file')}, each a corpus of its own")
    order = list(range(sum(shard.num_samples for shard in shards)))
    Random(config.random_seed).shuffle(order)
    return select(concatenate(shards), np.array(order, dtype=np.int64))


def _map(num_workers: int, tasks: list[tuple[int, Path, dict, PretrainingDataConfig]]) -> Iterator[tuple[Shard, int]]:
    if num_workers == 1:
        yield from map(_shard_of_file, tasks)
        return
    # Started afresh, not forked: the tokenizer's threads do not survive a fork.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(num_workers, len(tasks)), spawn, initializer=_start_worker) as pool:
        try:
            yield from pool.map(_shard_of_file, tasks)
        except BrokenProcessPool as error:
            raise UsageError(
                f"--num_workers {num_workers}: a worker was killed, probably out of memory; use fewer or smaller files"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _shard_of_file(task: tuple[int, Path, dict, PretrainingDataConfig]) -> tuple[Shard, int]:
    """Process one file as a corpus of its own; returns its sequences and its number of documents."""
    index, path, tokenizer_state, config = task
    tokenizer = BertTokenizer.from_state_dict(tokenizer_state)
    documents = read_documents([path], tokenizer, progress(disable=True))
    rng = Random(f"{config.random_seed} {index}")
    return make_instances(documents, pieces_of(tokenizer), config.instances, rng), len(documents)


def _start_worker() -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes already take all cores
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends a worker at once and without a traceback
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this worker when the command is killed; the pool would leave it waiting for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _warn_of_one_document(where: str) -> None:
    print(
        f"warning: one document in {where}: no random next sentence can come from another one; "
        "put blank lines between documents",
        file=sys.stderr,
    )


def _report(shard: Shard, tokenizer: BertTokenizer, max_seq_length: int) -> None:
    """Print what a reader checks first: filling, label balance and unknown words."""
    length = len(shard.tokens) / shard.num_samples
    unknown = float(np.mean(shard.tokens == tokenizer.unk_id))
    print(
        f"{_count(shard.num_samples, 'sequence')} of {length:.1f} pieces on average "
        f"({length / max_seq_length:.0%} of --max_seq_length), {shard.next_sentence_labels.mean():.0%} random next, "
        f"{unknown:.2%} [UNK]"
    )
    if unknown > UNKNOWN_WARNING:
        print(
            f"warning: {unknown:.0%} of the pieces are [UNK]: do --vocab_file and --do_lower_case fit the text?",
            file=sys.stderr,
        )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
