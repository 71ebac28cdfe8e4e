"""SQuAD from files to sequences and from logits to scores, for ``run_squad.py`` and ``inference.py``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bert.config import flag
from bert.errors import UsageError, naming_os_errors
from bert.finetune.output import write_eval_results
from bert.finetune.predict import Outputs, predict
from bert.finetune.training import TaskRun
from bert.sequences import Sequences
from bert.squad.answers import Answer, AnswerConfig, RawResult, find_answers, write_answers
from bert.squad.cache import EncodedSet, cache_path, features_key, load_or_make
from bert.squad.examples import SquadExample, load_dataset, paragraphs, read_squad_examples
from bert.squad.features import convert_examples_to_features, features_to_sequences
from bert.squad.metrics import evaluate_v1, evaluate_v2, read_gold, run_eval_script, tune_thresholds
from bert.squad.windows import InputFeatures
from bert.tokenization import BertTokenizer
from bert.train.graphs import build_predictor


@dataclass
class WindowConfig:
    """How questions and contexts become inputs."""

    max_seq_length: int = flag(384, "Longest input in pieces: a question and a window of its context.", minimum=8)
    doc_stride: int = flag(128, "Pieces from the start of one window to the start of the next.", minimum=1)
    max_query_length: int = flag(64, "Longest question in pieces; longer ones are cut.", minimum=1)


@dataclass
class SquadConfig:
    """The data, and how to answer and score it."""

    train_file: str | None = flag(None, "Training questions, such as train-v1.1.json.")
    predict_file: str | None = flag(None, "Questions to answer, such as dev-v1.1.json.")
    predict_batch_size: int = flag(8, "Windows per device in a prediction batch.", minimum=1)
    eval_script: str | None = flag(
        None, "Script to score with instead of the built-in metrics, called as SCRIPT PREDICT_FILE PREDICTIONS."
    )
    tune_threshold: bool = flag(
        False, "SQuAD 2.0: find the null threshold with the best F1 on --predict_file, and apply it."
    )
    skip_cache: bool = flag(False, "Do not cache the encoded training set.")
    cache_dir: str | None = flag(None, "Folder for the cached training set; by default that of --train_file.")
    windows: WindowConfig = field(default_factory=WindowConfig)
    answers: AnswerConfig = field(default_factory=AnswerConfig)


@dataclass
class Questions:
    """A set of questions to answer."""

    examples: list[SquadExample]
    features: list[InputFeatures]
    sequences: Sequences
    do_lower_case: bool
    version_2: bool


def check_files(config: SquadConfig, actions: Any) -> bool:
    """Return whether the files are SQuAD 2.0; raises UsageError for a missing file or a flag of the other version."""
    if (actions.do_predict or actions.do_eval) and config.predict_file is None:
        raise UsageError("--do_predict: --predict_file is needed")
    if actions.do_train and config.train_file is None:
        raise UsageError("--do_train: --train_file is needed")
    files = [path for path in (config.train_file, config.predict_file) if path is not None]
    version_2 = config.answers.version_2_with_negative or any(map(has_impossible, files))
    if config.tune_threshold and not version_2:
        raise UsageError(f"--tune_threshold: {' and '.join(files)}: SQuAD 1.1, expected 2.0 with null answers")
    return version_2


def has_impossible(path: str) -> bool:
    """Tell SQuAD 2.0 from 1.1: return whether any question has ``is_impossible``."""
    return any(
        "is_impossible" in question for part in paragraphs(load_dataset(path), path) for _, question in part.questions
    )


def training_set(config: SquadConfig, tokenizer: BertTokenizer, version_2: bool) -> EncodedSet:
    """Encode --train_file, or load it from the cache; facts: number of examples."""
    path, windows, alignment = config.train_file or "", vars(config.windows), config.answers.answer_alignment

    def make() -> EncodedSet:
        examples = read_squad_examples(path, True, version_2, alignment)
        features = convert_examples_to_features(examples, tokenizer, **windows, is_training=True)
        return EncodedSet(features_to_sequences(features), {"examples": len(examples)})

    if config.skip_cache or not Path(path).is_file():
        return make()
    key = features_key(path, tokenizer, **windows, version_2_with_negative=version_2, answer_alignment=alignment)
    return load_or_make(cache_path(path, key, config.cache_dir), key, make)


def read_questions(config: SquadConfig, tokenizer: BertTokenizer, version_2: bool) -> Questions:
    """Read and encode --predict_file."""
    examples = read_squad_examples(config.predict_file or "", False, version_2)
    return encode_questions(examples, config.windows, tokenizer, version_2)


def encode_questions(
    examples: list[SquadExample], windows: WindowConfig, tokenizer: BertTokenizer, version_2: bool = False
) -> Questions:
    """Cut questions to answer into windows."""
    features = convert_examples_to_features(examples, tokenizer, **vars(windows), is_training=False)
    return Questions(examples, features, features_to_sequences(features), tokenizer.do_lower_case, version_2)


def answer_questions(run: TaskRun, config: SquadConfig, objective: Any, questions: Questions) -> None:
    """Predict on all ranks; on rank 0 write the files and score."""
    run.logger.parameter(
        infer_start=True,
        eval_samples=len(questions.examples),
        eval_features=len(questions.features),
        predict_batch_size=config.predict_batch_size,
    )
    sequences, size = questions.sequences, config.predict_batch_size
    predictor = build_predictor(run.settings.parallel, objective, run.precision)
    outputs = predict(predictor, sequences, size, run.precision, run.world, run.shows_progress)
    if not run.world.is_main:
        return
    version_2, folder = questions.version_2, Path(run.output_dir)
    answers = answer(questions, outputs, replace(config.answers, version_2_with_negative=version_2))
    thresholds: dict[str, float] = {}
    if version_2 and config.tune_threshold:
        thresholds = best_threshold(config.predict_file or "", answers)
        answers = apply_threshold(answers, thresholds["best_f1_thresh"])
    with naming_os_errors(f"--output_dir {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
    # best_predictions.json holds texts before any threshold, for tuning one.
    version_2_files = (folder / "null_odds.json", folder / "best_predictions.json") if version_2 else ()
    write_answers(answers, folder / "predictions.json", folder / "nbest_predictions.json", *version_2_files)
    speed = len(questions.features) / outputs.seconds
    run.logger.summary({"e2e_inference_time": outputs.seconds, "inference_sequences_per_second": speed})
    if run.settings.run.do_eval:
        scores = {**scores_of(config, folder / "predictions.json", answers, version_2), **thresholds}
        run.logger.summary({"exact_match": scores.get("exact_match", scores.get("exact")), "F1": scores["f1"]})
        write_eval_results(folder, scores)
        run.notice(", ".join(f"{name} {value:.2f}" for name, value in scores.items()))


def answer(questions: Questions, outputs: Outputs, config: AnswerConfig) -> list[Answer]:
    """Turn the logits of all windows into answers."""
    bounds = questions.sequences.offsets
    results = [
        RawResult(feature.unique_id, *outputs.values[bounds[i] : bounds[i + 1]].T)
        for i, feature in enumerate(questions.features)
    ]
    return find_answers(questions.examples, questions.features, results, questions.do_lower_case, config)


def apply_threshold(answers: Sequence[Answer], threshold: float) -> list[Answer]:
    """Choose "" for each question whose null odds exceed ``threshold``, and the best text for the others."""
    return [replace(each, text="" if (each.null_odds or 0.0) > threshold else each.best_text) for each in answers]


def best_threshold(predict_file: str, answers: Sequence[Answer]) -> dict[str, float]:
    """Return the best scores and their thresholds; :func:`apply_threshold` with one of them reaches its score."""
    odds = {each.qas_id: each.null_odds or 0.0 for each in answers}
    found = tune_thresholds(read_gold(predict_file), {each.qas_id: each.best_text for each in answers}, odds)
    # If answering nothing is best, the published script reports 0.0, which refuses only questions with odds above it.
    nothing = math.nextafter(min(odds.values(), default=0.0), -math.inf)
    for name in ("best_exact_thresh", "best_f1_thresh"):
        if found[name] not in odds.values():
            found[name] = min(found[name], nothing)
    return found


def scores_of(config: SquadConfig, predictions: Path, answers: Sequence[Answer], version_2: bool) -> dict[str, float]:
    """Score answers with the built-in metrics, or with --eval_script on the file ``predictions``."""
    path, texts = config.predict_file or "", {each.qas_id: each.text for each in answers}
    if config.eval_script is not None:
        return run_eval_script(config.eval_script, path, predictions)
    return evaluate_v2(read_gold(path), texts) if version_2 else evaluate_v1(read_gold(path, "1.1"), texts)
