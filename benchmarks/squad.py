"""Compare training, prediction and preparing questions on SQuAD with transformers.

    python benchmarks/squad.py --bf16 --compile on
    python benchmarks/squad.py --file train-v1.1.json --vocab_file uncased/vocab.txt --preset base

transformers runs as its users run it: BertForQuestionAnswering in eager fp32 on inputs padded to --max_seq_length,
AdamW, the fast tokenizer and a loop that finds the answers. This suite trains and predicts on the same windows without
padding. Both have the same questions, model size and batches and run in turns (A B A B ...). The table shows medians
and the median of the ratios within a round. Without --file the questions are about an invented encyclopedia, with
contexts of 150 words on average.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import cycle, islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.pretrain import PRESETS
from benchmarks.side_by_side import describe_device, median_ratio, plural, take_turns
from benchmarks.squad_peer import Peer, check_stride, convert, pad, peer_tokenizer
from bert.batch import TaskBatch
from bert.config import flag, run_command
from bert.distributed import DistributedConfig, StopSignal, World, join_world
from bert.finetune.predict import predict
from bert.finetune.training import RunConfig, TrainingConfig
from bert.model.bert import BertForQuestionAnswering
from bert.model.config import BertConfig
from bert.model.objective import QuestionAnsweringObjective
from bert.optim.build import OptimizerConfig, build_optimizer
from bert.prepare.vocabulary import VocabularyConfig, train_vocabulary
from bert.sequences import Sequences, collate, from_rows
from bert.squad.examples import load_dataset, paragraphs, read_squad_examples
from bert.squad.features import convert_examples_to_features, features_to_sequences
from bert.tokenization import BertTokenizer
from bert.train.parallel import ParallelConfig, apply_parallelism, resolve_compile
from bert.train.precision import Precision, PrecisionConfig
from bert.train.run import build_run
from bert.train.trainer import Trainer
from data.gazetteer import build_world
from data.gazetteer.questions import write_squad

VOCABULARY = 30522  # rows of the embedding table, even if the text needs fewer
JOINED = (1, 2, 2, 3)  # contexts of the encyclopedia, of about 75 words each, per context of the benchmark
QUESTIONS = 2  # per context of the encyclopedia


@dataclass
class SquadBenchmarkConfig:
    preset: str = flag("small", "Model size: small (4 layers x 512), base or large.", choices=tuple(PRESETS))
    batch_size: int = flag(8, "Windows per training step and per batch of the prediction.", minimum=1)
    predict_windows: int = flag(64, "Windows per turn of the prediction.", minimum=1)
    file: str | None = flag(
        None, "Training questions in SQuAD 1.1's format, such as train-v1.1.json; if omitted, generated."
    )
    vocab_file: str | None = flag(None, "Uncased WordPiece vocabulary; if omitted, one is trained on the questions.")
    articles: int = flag(3000, "Articles of the invented encyclopedia, without --file.", minimum=300)
    rounds: int = flag(7, "Timed rounds; each contender has one turn in each.", minimum=1)
    warmup: int = flag(1, "Untimed rounds before those, which include compilation.", minimum=1)
    attention: str = flag("auto", "Attention of this suite; auto = the fastest on the device.")
    max_seq_length: int = flag(384, "Maximum input in pieces: a question and a window of its context.", minimum=32)
    doc_stride: int = flag(
        128,
        "Pieces from the start of one window to that of the next; for transformers, pieces that two windows share.",
        minimum=1,
    )
    max_query_length: int = flag(64, "Maximum question in pieces; transformers does not cut questions.", minimum=1)
    distributed: DistributedConfig = field(default_factory=DistributedConfig)
    precision: PrecisionConfig = field(default_factory=PrecisionConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)


@dataclass
class Result:
    """A row of the table."""

    what: str
    ours: float  # median per second
    theirs: float
    ratio: float  # the median of the ratios within a round


def main(config: SquadBenchmarkConfig) -> None:
    with tempfile.TemporaryDirectory() as folder, join_world(config.distributed) as world:
        file = config.file or write_questions(Path(folder), config.articles)
        vocab_file = str(Path(folder) / "vocab.txt")  # the file name that transformers expects
        if config.vocab_file is None:
            train_words(Path(folder), file, vocab_file)
        else:
            BertTokenizer(config.vocab_file)  # raises UsageError
            shutil.copyfile(config.vocab_file, vocab_file)
        sequences, preparing = compare_preparing(config, file, vocab_file, world)
        results = [*compare_model(config, sequences, vocab_file, world), preparing]
    mean, full = sequences.lengths.mean(), config.max_seq_length
    print(
        f"{config.preset} on {describe_device(world.device)}; "
        f"this suite in {Precision(config.precision, world.device).name}, --compile {config.parallel.compile}\n"
        f"{len(sequences):,} windows of {mean:.0f} tokens on average ({mean / full:.0%} of {full}), batches of "
        f"{config.batch_size}, {plural(config.rounds, 'round')}\n"
    )
    print("| | this suite | transformers | this suite is faster by |")
    print("|---|---:|---:|---:|")
    for row in results:
        print(f"| {row.what} | {row.ours:,.1f} | {row.theirs:,.1f} | {row.ratio:.2f} x |")


# --- Data


def write_questions(folder: Path, articles: int) -> str:
    """Write questions about an encyclopedia in SQuAD's format, on contexts as long as SQuAD's; return the file."""
    write_squad(folder, build_world(seed=0, size=articles), QUESTIONS)
    written = json.loads((folder / "v1.1" / "train-v1.1.json").read_text(encoding="utf8"))["data"]
    joined = join_contexts([each["paragraphs"][0] for each in written], random.Random(0))
    file = folder / "train.json"
    file.write_text(json.dumps({"version": "1.1", "data": [{"title": "", "paragraphs": joined}]}), encoding="utf8")
    return str(file)


def join_contexts(single: list[dict[str, Any]], rng: random.Random) -> list[dict[str, Any]]:
    """Join every few successive paragraphs into one, moving the positions of the answers."""
    made, rest = [], iter(single)
    while group := list(islice(rest, rng.choice(JOINED))):
        context, questions = "", []
        for each in group:
            context += " " * bool(context)
            for question in each["qas"]:
                moved = [{**a, "answer_start": a["answer_start"] + len(context)} for a in question["answers"]]
                questions.append({**question, "answers": moved})
            context += each["context"]
        made.append({"context": context, "qas": questions})
    return made


def train_words(folder: Path, file: str, output: str) -> None:
    """Train a vocabulary on the text of the questions."""
    parts = list(paragraphs(load_dataset(file), file))
    lines = [line for part in parts for line in (part.context, *(each["question"] for _, each in part.questions))]
    (folder / "text.txt").write_text("\n".join(line.replace("\n", " ") for line in lines) + "\n", encoding="utf8")
    with contextlib.redirect_stdout(io.StringIO()):  # what it says about --vocab_size concerns no flag of this command
        train_vocabulary(VocabularyConfig([str(folder / "text.txt")], output, VOCABULARY, disable_progress_bar=True))


# --- Contenders


def compare(
    config: SquadBenchmarkConfig,
    world: World,
    what: str,
    amount: int,
    ours: Callable[[], Any],
    theirs: Callable[[], Any],
) -> Result:
    """Time both on the same ``amount`` of work in turns."""
    contenders = {"ours": ours, "theirs": theirs}
    take_turns(contenders, config.warmup, world.device)
    seconds = take_turns(contenders, config.rounds, world.device)
    our_rate, their_rate = (amount / statistics.median(seconds[name]) for name in contenders)
    return Result(what, our_rate, their_rate, median_ratio(seconds["theirs"], seconds["ours"]))


def compare_preparing(
    config: SquadBenchmarkConfig, file: str, vocab_file: str, world: World
) -> tuple[Sequences, Result]:
    """Compare converting the file to windows with labels; also return this suite's windows."""
    tokenizer, peer = BertTokenizer(vocab_file), peer_tokenizer(vocab_file, do_lower_case=True)
    examples = read_squad_examples(file, is_training=True, version_2_with_negative=False)
    check_stride(file, peer, config.max_seq_length, config.doc_stride)

    def ours() -> Sequences:
        read = read_squad_examples(file, is_training=True, version_2_with_negative=False)
        lengths = (config.max_seq_length, config.doc_stride, config.max_query_length)
        return features_to_sequences(convert_examples_to_features(read, tokenizer, *lengths, is_training=True))

    def theirs() -> Any:
        return convert(file, peer, config.max_seq_length, config.doc_stride)

    sequences, columns = ours(), theirs()
    what = f"preparing, questions/s ({len(sequences):,} and {len(columns['input_ids']):,} windows)"
    return sequences, compare(config, world, what, len(examples), ours, theirs)


def compare_model(
    config: SquadBenchmarkConfig, sequences: Sequences, vocab_file: str, world: World
) -> tuple[Result, Result]:
    """Compare training steps, each on another batch, and prediction."""
    size = max(VOCABULARY, BertTokenizer(vocab_file).vocab_size)
    model_config = BertConfig(vocab_size=size, **PRESETS[config.preset])
    model_config.max_position_embeddings = max(512, config.max_seq_length)
    trainer, peer = build_trainer(config, model_config, world), Peer(model_config, world.device)
    length, count = config.max_seq_length, config.batch_size

    order = np.random.default_rng(0).permutation(len(sequences))
    batches = [collate(sequences, chosen) for chosen in np.resize(order, (config.warmup + config.rounds, count))]
    streams, padded = cycle(batches), cycle([pad(batch, length, world.device) for batch in batches])
    training = compare(
        config,
        world,
        "training, windows/s",
        count,
        lambda: step(trainer, next(streams)),
        lambda: peer.train(next(padded)),
    )

    chosen = first(sequences, config.predict_windows)
    groups = np.array_split(np.arange(len(chosen)), range(count, len(chosen), count))
    tables = [pad(collate(chosen, group), length, world.device) for group in groups]
    objective: Any = trainer.objective
    predicting = compare(
        config,
        world,
        "prediction, windows/s",
        len(chosen),
        lambda: predict(objective, chosen, count, trainer.precision, world),
        lambda: peer.predict(tables),
    )
    return training, predicting


def build_trainer(config: SquadBenchmarkConfig, model_config: BertConfig, world: World) -> Trainer:
    """Return this suite's trainer with AdamW, as in run_squad.py."""
    torch.manual_seed(0)
    settings = TrainingConfig(RunConfig(output_dir="", seed=0), precision=config.precision, parallel=config.parallel)
    run = build_run(settings, world, StopSignal())
    model = BertForQuestionAnswering(model_config, config.attention).to(world.device)
    compiled = resolve_compile(config.parallel, world.device, flops=0, notice=print)
    layers = model.bert.encoder.layer
    objective = apply_parallelism(QuestionAnsweringObjective(model), layers, config.parallel, world, compiled)
    optimizer = build_optimizer(OptimizerConfig(optimizer="adamw"), model)
    return Trainer(run, objective, optimizer, lambda step: 1e-5)


def step(trainer: Trainer, batch: TaskBatch) -> None:
    trainer.train_step([batch], lambda: False)
    trainer.apply()


def first(sequences: Sequences, count: int) -> Sequences:
    """Return the first ``count`` sequences, without their labels."""
    bounds = sequences.offsets[: count + 1]
    rows = [sequences.tokens[a:b].tolist() for a, b in pairwise(bounds)]
    return from_rows(rows, sequences.segment_starts[:count].tolist())


if __name__ == "__main__":
    run_command(main, SquadBenchmarkConfig)
