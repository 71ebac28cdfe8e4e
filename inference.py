"""Answer a question about a text with a model that run_squad.py fine-tuned.

    python inference.py --init_checkpoint results/SQuAD/pytorch_model.bin \\
        --question "What river runs through Paris?" --context "The Seine runs through Paris."
    python inference.py --init_checkpoint results/SQuAD/pytorch_model.bin --interactive

The text may be longer than the model's input: it is read in overlapping windows. Checkpoints of this suite contain
their configuration and vocabulary; others need --config_file and --vocab_file.
"""

import json
import sys
from dataclasses import dataclass, field, replace

from bert.checkpoint.open_model import InferenceConfig
from bert.config import flag, run_command
from bert.distributed import join_world
from bert.errors import UsageError
from bert.squad.reader import Reader, ReaderConfig, Reply
from bert.squad.task import WindowConfig
from bert.squad.terminal import NO_ANSWER, converse, render, wants_color

QUESTION = "What was the ferry called?"
CONTEXT = (
    "Amber Lake lies in the hills north of Torvik. Since the road along its shore is closed in winter, the village "
    "bought a ferry in 1931. The ferry was called the Grey Heron and took forty passengers from one end of the lake to "
    "the other."
)
LEAST_SHOWN = 3  # answers to each question with --interactive


@dataclass
class Config:
    inference: InferenceConfig
    question: str | None = flag(None, "The question. Without it and --context, an example is asked.")
    context: str | None = flag(None, "The text that contains the answer.")
    interactive: bool = flag(
        False, f"Read texts and questions from a terminal or a pipe; shows at least {LEAST_SHOWN} answers to each."
    )
    json: bool = flag(False, "Print one line per answer, a JSON object, and nothing else.")
    seed: int = flag(1, "Ignored: nothing is random. Accepted so that existing scripts run.")
    windows: WindowConfig = field(default_factory=WindowConfig)
    answers: ReaderConfig = field(default_factory=ReaderConfig)


def main(config: Config) -> None:
    given = [name for name in ("question", "context") if getattr(config, name) is not None]
    if config.interactive and given:
        raise UsageError(f"--{given[0]}: expected without --interactive, which reads texts and questions from stdin")
    if len(given) == 1:
        raise UsageError(
            f"--{given[0]}: expected --question and --context, both or neither; --interactive asks for both"
        )
    answers = config.answers
    if config.interactive:
        answers = replace(answers, n_best_size=max(answers.n_best_size, LEAST_SHOWN))
    with join_world(config.inference.place()) as world:
        if world.size > 1:
            raise UsageError(f"inference.py runs in one process; {world.size} were started")
        reader = Reader(config.inference, config.windows, answers, world)
        show = show_json if config.json else show_in_sentence if config.interactive else show_plainly
        if config.interactive:
            converse(reader.ask, show)
        else:
            question, context = (config.question, config.context) if given else (QUESTION, CONTEXT)
            show(reader.ask(question or "", context or ""))


def show_json(reply: Reply) -> None:
    print(json.dumps(reply.as_json()), flush=True)


def show_in_sentence(reply: Reply) -> None:
    print(render(reply, wants_color(sys.stdout)), flush=True)


def show_plainly(reply: Reply) -> None:
    """Print the question, the context, the answer and the n best as a list, as the published script does."""
    best = json.dumps([candidate.as_json() for candidate in reply.answer.nbest], indent=4)
    answer = reply.answer.text or NO_ANSWER
    print(f"question:  {reply.question}", f"context:  {reply.context}", "", "", answer, "", best, sep="\n")


if __name__ == "__main__":
    run_command(main, Config)
