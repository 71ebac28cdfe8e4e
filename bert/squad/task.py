"""SQuAD, from files to sequences and from logits to scores, as ``run_squad.py`` and ``inference.py`` use it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bert.config import flag
from bert.errors import UsageError
from bert.finetune.output import write_eval_results
from bert.finetune.predict import Outputs, predict
from bert.finetune.training import TaskRun
from bert.sequences import Sequences
from bert.squad.answers import Answer, AnswerConfig, RawResult, find_answers, write_json
from bert.squad.cache import Features, cache_path, features_key, load_or_make
from bert.squad.examples import load_dataset, paragraphs
from bert.squad.features import (
    InputFeatures,
    SquadExample,
    convert_examples_to_features,
    features_to_sequences,
    read_squad_examples,
)
from bert.squad.metrics import evaluate_v1, evaluate_v2, read_gold, run_eval_script, tune_thresholds
from bert.tokenization import BertTokenizer


@dataclass
class WindowConfig:
    """How questions and contexts become inputs."""

    max_seq_length: int = flag(384, "Longest input in pieces: a question and a window of its context.", minimum=8)
    doc_stride: int = flag(128, "Pieces from the start of a window to that of the next.", minimum=1)
    max_query_length: int = flag(64, "Longest question in pieces; longer ones are cut.", minimum=1)


@dataclass
class SquadConfig:
    """Files of SQuAD and what becomes of the answers."""

    train_file: str | None = flag(None, "Training questions, such as train-v1.1.json.")
    predict_file: str | None = flag(None, "Questions to answer, such as dev-v1.1.json.")
    predict_batch_size: int = flag(8, "Windows per device in a batch of the prediction.", minimum=1)
    eval_script: str | None = flag(
        None, "Script to score with instead of the built-in metrics, called as SCRIPT PREDICT_FILE PREDICTIONS."
    )
    tune_threshold: bool = flag(
        False, "SQuAD 2.0: find the null threshold with the best F1 on --predict_file, and apply it."
    )
    skip_cache: bool = flag(False, "Keep no encoded training set.")
    cache_dir: str | None = flag(None, "Folder of the encoded training set; by default that of --train_file.")
    windows: WindowConfig = field(default_factory=WindowConfig)
    answers: AnswerConfig = field(default_factory=AnswerConfig)


@dataclass
class Questions:
    """A set to answer."""

    examples: list[SquadExample]
    features: list[InputFeatures]
    sequences: Sequences
    do_lower_case: bool
    version_2: bool = False


def check_files(config: SquadConfig, actions: Any) -> bool:
    """Tell whether the files are SQuAD 2.0; ``actions`` has do_train, do_predict and do_eval.

    Raises UsageError where a file is missing that they need, and where a flag does not fit the version.
    """
    if (actions.do_predict or actions.do_eval) and config.predict_file is None:
        raise UsageError("--do_predict: --predict_file is needed")
    if actions.do_train and config.train_file is None:
        raise UsageError("--do_train: --train_file is needed")
    files = [path for path in (config.train_file, config.predict_file) if path is not None]
    version_2 = config.answers.version_2_with_negative or any(map(has_impossible, files))
    if config.tune_threshold and not version_2:
        raise UsageError(f"--tune_threshold: {' and '.join(files)}: SQuAD 1.1, expected 2.0, with null answers")
    return version_2


def has_impossible(path: str) -> bool:
    """Tell SQuAD 2.0 from 1.1: whether any question says that it may be impossible."""
    return any(
        "is_impossible" in question for part in paragraphs(load_dataset(path), path) for _, question in part.questions
    )


def training_set(config: SquadConfig, tokenizer: BertTokenizer, version_2: bool) -> Features:
    """Encode --train_file, or take what was kept of an earlier run; facts: number of examples."""
    path, windows = config.train_file or "", config.windows
    arguments = {**vars(windows), "version_2_with_negative": version_2}

    def make() -> Features:
        examples = read_squad_examples(path, True, version_2)
        features = convert_examples_to_features(
            examples, tokenizer, windows.max_seq_length, windows.doc_stride, windows.max_query_length, True
        )
        return Features(features_to_sequences(features), {"examples": len(examples)})

    if config.skip_cache or not Path(path).is_file():
        return make()
    key = features_key([path], tokenizer, **arguments)
    return load_or_make(cache_path(path, key, config.cache_dir), key, make)


def read_questions(config: SquadConfig, tokenizer: BertTokenizer, version_2: bool) -> Questions:
    """Read --predict_file."""
    examples = read_squad_examples(config.predict_file or "", False, version_2)
    return replace(encode_questions(examples, config.windows, tokenizer), version_2=version_2)


def encode_questions(examples: list[SquadExample], windows: WindowConfig, tokenizer: BertTokenizer) -> Questions:
    """Cut questions that are to be answered into windows."""
    features = convert_examples_to_features(
        examples, tokenizer, windows.max_seq_length, windows.doc_stride, windows.max_query_length, False
    )
    return Questions(examples, features, features_to_sequences(features), tokenizer.do_lower_case)


def answer_questions(run: TaskRun, config: SquadConfig, objective: Any, questions: Questions) -> None:
    """Predict, write the files and score; rank 0 writes."""
    run.logger.parameter(
        infer_start=True,
        eval_samples=len(questions.examples),
        eval_features=len(questions.features),
        predict_batch_size=config.predict_batch_size,
    )
    sequences, size = questions.sequences, config.predict_batch_size
    outputs = predict(objective, sequences, size, run.precision, run.world, run.shows_progress)
    if not run.world.is_main:
        return
    version_2 = questions.version_2
    answers = answer(questions, outputs, replace(config.answers, version_2_with_negative=version_2))
    predictions = {each.qas_id: each.text for each in answers}
    thresholds: dict[str, float] = {}
    if version_2 and config.tune_threshold:
        thresholds = best_threshold(config.predict_file or "", answers)
        predictions = apply_threshold(answers, thresholds["best_f1_thresh"])
    write_answers(run.output_dir, answers, predictions, version_2)
    speed = len(questions.features) / outputs.seconds
    run.logger.summary({"e2e_inference_time": outputs.seconds, "inference_sequences_per_second": speed})
    actions = run.settings.run
    if actions.do_eval:
        scores = {**scores_of(config, run.output_dir, predictions, version_2), **thresholds}
        run.logger.summary({"exact_match": scores.get("exact_match", scores.get("exact")), "F1": scores["f1"]})
        write_eval_results(run.output_dir, scores)
        run.notice(", ".join(f"{name} {value:.2f}" for name, value in scores.items()))


def answer(questions: Questions, outputs: Outputs, config: AnswerConfig) -> list[Answer]:
    """Turn the logits of all windows into answers."""
    bounds = questions.sequences.offsets
    results = [
        RawResult(feature.unique_id, *outputs.values[bounds[i] : bounds[i + 1]].T)
        for i, feature in enumerate(questions.features)
    ]
    return find_answers(questions.examples, questions.features, results, questions.do_lower_case, config)


def apply_threshold(answers: Sequence[Answer], threshold: float) -> dict[str, str]:
    """Return id -> answer, "" where the null odds exceed ``threshold``."""
    return {each.qas_id: "" if (each.null_odds or 0.0) > threshold else each.best_text for each in answers}


def write_answers(folder: str | Path, answers: Sequence[Answer], predictions: dict[str, str], version_2: bool) -> None:
    """Write predictions.json, nbest_predictions.json and, of SQuAD 2.0, null_odds.json and best_predictions.json.

    The last holds the best text of every question, whatever its null odds: what a threshold is to be tuned on.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "predictions.json", predictions)
    write_json(folder / "nbest_predictions.json", {a.qas_id: [c._asdict() for c in a.nbest] for a in answers})
    if version_2:
        write_json(folder / "null_odds.json", {a.qas_id: a.null_odds for a in answers})
        write_json(folder / "best_predictions.json", {a.qas_id: a.best_text for a in answers})


def best_threshold(predict_file: str, answers: Sequence[Answer]) -> dict[str, float]:
    """Return best_f1_thresh and its like from the answers before any threshold; applied, they give those scores."""
    odds = {each.qas_id: each.null_odds or 0.0 for each in answers}
    found = tune_thresholds(read_gold(predict_file), {each.qas_id: each.best_text for each in answers}, odds)
    # Where to answer nothing is best, the published script says 0.0, which refuses only what has odds above it.
    nothing = math.nextafter(min(odds.values(), default=0.0), -math.inf)
    for name in ("best_exact_thresh", "best_f1_thresh"):
        if found[name] not in odds.values():
            found[name] = min(found[name], nothing)
    return found


def scores_of(
    config: SquadConfig, folder: str | Path, predictions: dict[str, str], version_2: bool
) -> dict[str, float]:
    """Score predictions with the built-in metrics, or with --eval_script on the file that was written."""
    path = config.predict_file or ""
    if config.eval_script is not None:
        return run_eval_script(config.eval_script, path, Path(folder) / "predictions.json")
    if version_2:
        return evaluate_v2(read_gold(path), predictions)
    return evaluate_v1(read_gold(path, "1.1"), predictions)
