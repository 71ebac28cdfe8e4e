"""Fine-tune BERT on SQuAD 1.1 or 2.0, answer questions and score the answers.

    python run_squad.py --init_checkpoint results/ckpt_8601.pt --output_dir results/SQuAD --do_train --do_predict \\
        --do_eval --train_file train-v1.1.json --predict_file dev-v1.1.json --train_batch_size 32 --learning_rate 3e-5

SQuAD 2.0 is recognised by its file. Writes the model (pytorch_model.bin, config.json, vocab.txt), predictions.json,
nbest_predictions.json, null_odds.json and eval_results.txt. On several GPUs: torchrun --nproc_per_node=8 run_squad.py
"""

import time
from dataclasses import dataclass, field

from bert.checkpoint.open_model import load_start
from bert.config import run_command, to_dict
from bert.distributed import collective_errors
from bert.finetune.command import run_fine_tuning
from bert.finetune.output import save_model
from bert.finetune.training import TaskRun, TrainingConfig, find_own_checkpoint, fine_tune, load_objective
from bert.model.bert import BertForQuestionAnswering
from bert.model.config import BertConfig
from bert.model.objective import QuestionAnsweringObjective
from bert.squad.task import SquadConfig, answer_questions, check_files, read_questions, training_set
from bert.train.run import open_log

HEAD = ("qa_outputs.*",)


@dataclass
class Config:
    training: TrainingConfig
    squad: SquadConfig = field(default_factory=SquadConfig)

    def build_objective(self, size: BertConfig) -> QuestionAnsweringObjective:
        return QuestionAnsweringObjective(BertForQuestionAnswering(size, self.training.model.attention))


def main(config: Config) -> None:
    run_fine_tuning(config, train_and_answer, config.build_objective)


def train_and_answer(config: Config, run: TaskRun) -> None:
    """Fine-tune on --train_file, answer --predict_file and score the answers, whichever of it the flags ask for."""
    training, squad, actions = config.training, config.squad, config.training.run

    # What is learned, and from where.
    found = find_own_checkpoint(run)
    with collective_errors(run.world):
        version_2 = check_files(squad, actions)
        start = load_start(
            training.model, training.checkpoint.init_checkpoint, squad.windows.max_seq_length, found.state
        )
        train = training_set(squad, start.tokenizer, version_2) if actions.do_train else None
        answering = actions.do_predict or actions.do_eval
        questions = read_questions(squad, start.tokenizer, version_2) if answering else None
        objective = load_objective(run, start, config.build_objective, HEAD, found)

    # Training, then the answers.
    with open_log(run) as run:
        weights = sum(parameter.numel() for parameter in objective.model.parameters())
        run.logger.parameter(Config=to_dict(config), SEED=run.seed, model_weights_num=weights)
        if train is not None:
            run.logger.parameter(training_samples=train.facts["examples"], training_features=len(train.sequences))
            run.logger.parameter(train_start=True, train_batch_size=training.batch.train_batch_size)
            began = time.perf_counter()
            outcome = fine_tune(run, objective, train.sequences, {**start.constants(), "task": "squad"}, found.state)
            if outcome.interrupted:
                return
            run.logger.summary({"e2e_train_time": time.perf_counter() - began})
            if run.world.is_main:
                save_model(run.output_dir, objective.model, start, task="squad", version_2_with_negative=version_2)
        if questions is not None:
            answer_questions(run, squad, objective, questions)


if __name__ == "__main__":
    run_command(main, Config)
