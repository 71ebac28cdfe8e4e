"""Fine-tune BERT on SQuAD 1.1 or 2.0, answer questions and score the answers.

    python run_squad.py --init_checkpoint results/ckpt_8601.pt --output_dir results/SQuAD --do_train --do_predict \\
        --do_eval --train_file train-v1.1.json --predict_file dev-v1.1.json --train_batch_size 32 --learning_rate 3e-5

SQuAD 2.0 is recognised by its file. Writes the model (pytorch_model.bin, config.json, vocab.txt), predictions.json,
nbest_predictions.json, null_odds.json and eval_results.txt. On several GPUs: torchrun --nproc_per_node=8 run_squad.py
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from bert.checkpoint import find_checkpoint
from bert.checkpoint.open_model import StartingPoint, load_start
from bert.config import run_command, to_dict
from bert.distributed import StopSignal, World, collective_errors, join_world, seed_everything
from bert.errors import UsageError
from bert.finetune.find_micro_batch import find_micro_batches
from bert.finetune.output import save_model
from bert.finetune.predict import predict
from bert.finetune.training import TrainingConfig, fine_tune, place
from bert.glue.output import write_eval_results
from bert.log import Logger, build_logger, resolve_tensorboard_dir
from bert.model.bert import BertForQuestionAnswering
from bert.model.objective import QuestionAnsweringObjective
from bert.squad.features import read_squad_examples
from bert.squad.task import (
    Questions,
    SquadConfig,
    answer,
    apply_threshold,
    best_threshold,
    encode_questions,
    has_impossible,
    scores_of,
    training_set,
    write_answers,
)
from bert.train.foreign_flags import refuse_elsewhere
from bert.train.precision import Precision

HEAD = ("qa_outputs.*", "bert.pooler.*")  # answers do not use the pooler


@dataclass
class Config:
    training: TrainingConfig
    squad: SquadConfig = field(default_factory=SquadConfig)


def main(config: Config) -> None:
    refuse_elsewhere(config.training.elsewhere, to_dict(config))
    run, squad = config.training.run, config.squad
    if run.find_micro_batch:
        attention = config.training.model.attention
        find_micro_batches(
            config.training,
            lambda size: QuestionAnsweringObjective(BertForQuestionAnswering(size, attention)),
            labels=("start", "end"),
        )
        return
    if not (run.do_train or run.do_predict or run.do_eval):
        raise UsageError("nothing to do: add --do_train, --do_predict or --do_eval")
    if (run.do_predict or run.do_eval) and squad.predict_file is None:
        raise UsageError("--do_predict: --predict_file is needed")
    with join_world(place(config.training)) as world, StopSignal() as stop:
        fine_tune_and_answer(config, world, stop)
        if stop.by_keyboard:
            raise KeyboardInterrupt


def fine_tune_and_answer(config: Config, world: World, stop: StopSignal) -> None:
    training, run, squad = config.training, config.training.run, config.squad
    notice: Callable[[str], None] = print if world.is_main else lambda line: None
    precision = Precision(training.precision, world.device, notice)
    found = find_checkpoint(training.checkpoint, run.output_dir, world, notice) if run.do_train else (None, None)

    # The questions and the model.
    with collective_errors(world):
        files = [path for path in (squad.train_file, squad.predict_file) if path is not None]
        version_2 = squad.answers.version_2_with_negative or any(map(has_impossible, files))
        if squad.tune_threshold and not version_2:
            raise UsageError(f"--tune_threshold: {' and '.join(files)}: SQuAD 1.1, expected 2.0, with null answers")
        length = squad.windows.max_seq_length
        start = load_start(training.model, training.checkpoint.init_checkpoint, length, found[1])
        train = training_set(squad, start.tokenizer, version_2) if run.do_train else None
        questions = None
        if run.do_predict or run.do_eval:
            examples = read_squad_examples(squad.predict_file or "", False, version_2)
            questions = encode_questions(examples, squad.windows, start.tokenizer)
        seed_everything(run.seed)
        model = BertForQuestionAnswering(start.model_config, training.model.attention)
        report = start.load_into(model, HEAD if run.do_train and found[1] is None else ())
    if report is not None:
        notice(f"{start.what}: {report}")
    objective = QuestionAnsweringObjective(model.to(world.device, precision.parameter_dtype))

    tensorboard = resolve_tensorboard_dir(training.log.tensorboard_dir, run.output_dir)
    with build_logger(training.log.json_summary, tensorboard, world.is_main) as logger:
        weights = sum(parameter.numel() for parameter in model.parameters())
        logger.parameter(Config=to_dict(config), SEED=run.seed, model_weights_num=weights)
        if train is not None:
            logger.parameter(training_samples=train.facts["examples"], training_features=len(train.sequences))
            logger.parameter(train_start=True, train_batch_size=training.batch.train_batch_size)
            began = time.perf_counter()
            constant = {**start.constants(), "task": "squad"}
            outcome = fine_tune(
                training, objective, train.sequences, precision, world, stop, logger, constant, found[1], notice
            )
            if outcome.interrupted:
                return
            logger.summary(
                {
                    "e2e_train_time": time.perf_counter() - began,
                    "training_sequences_per_second": outcome.sequences_per_second,
                    "final_loss": outcome.final_loss,
                }
            )
            if world.is_main:
                save_model(run.output_dir, model, start, task="squad", version_2_with_negative=version_2)
        if questions is not None:
            answer_questions(config, questions, objective, start, version_2, precision, world, logger, notice)


def answer_questions(
    config: Config,
    questions: Questions,
    objective: QuestionAnsweringObjective,
    start: StartingPoint,
    version_2: bool,
    precision: Precision,
    world: World,
    logger: Logger,
    notice: Callable[[str], None],
) -> None:
    """Predict, write the files and score; the files are written by the main rank alone."""
    squad, run = config.squad, config.training.run
    logger.parameter(
        infer_start=True,
        eval_samples=len(questions.examples),
        eval_features=len(questions.features),
        predict_batch_size=squad.predict_batch_size,
    )
    show = not config.training.log.disable_progress_bar
    outputs = predict(objective, questions.sequences, squad.predict_batch_size, precision, world, show)
    if not world.is_main:
        return
    settings = replace(squad.answers, version_2_with_negative=version_2)
    answers = answer(questions, outputs, start.tokenizer.do_lower_case, settings)
    predictions = {each.qas_id: each.text for each in answers}
    scores: dict[str, Any] = {}
    if version_2 and squad.tune_threshold:
        scores = best_threshold(squad.predict_file or "", answers)
        predictions = apply_threshold(answers, scores["best_f1_thresh"])
    write_answers(run.output_dir, answers, predictions, version_2)
    logger.summary(
        {
            "e2e_inference_time": outputs.seconds,
            "inference_sequences_per_second": len(questions.features) / outputs.seconds,
        }
    )
    if run.do_eval:
        scores = {**scores_of(squad, run.output_dir, predictions, version_2), **scores}
        exact = scores.get("exact_match", scores.get("exact"))
        logger.summary({"exact_match": exact, "F1": scores["f1"]})
        write_eval_results(run.output_dir, scores)
        notice(", ".join(f"{name} {value:.2f}" for name, value in scores.items()))


if __name__ == "__main__":
    run_command(main, Config)
