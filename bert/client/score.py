"""A SQuAD file asked of a running server: the answers, their scores, and those of the checkpoint beside them.

rows = compare(config)
print(render(rows))

           exact match     F1  texts that differ  questions/s
served           47.56  51.17                  0         93.1
offline          47.56  51.17                           120.4
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bert.client.ask import AskConfig, open_asker, read_file_questions
from bert.client.flow import in_order
from bert.config import flag
from bert.errors import UsageError, naming_os_errors
from bert.files import replacing
from bert.log import progress
from bert.squad.metrics import evaluate_v1, evaluate_v2, read_gold

SHOWN = 5  # differing texts


@dataclass
class ScoreConfig:
    predict_file: str = flag(help="SQuAD file, such as dev-v1.1.json.")
    checkpoint: str | None = flag(None, "The trained checkpoint: answer the same questions with it, offline.")
    expect_equal: bool = flag(False, "Exit with 1 if an answer differs from the checkpoint's.")
    max_seq_length: int = flag(384, "As exported; for --checkpoint.", minimum=8)
    doc_stride: int = flag(128, "As exported; for --checkpoint.", minimum=1)
    max_query_length: int = flag(64, "As exported; for --checkpoint.", minimum=1)
    max_answer_length: int = flag(30, "As exported; for --checkpoint.", minimum=1)
    null_score_diff_threshold: float = flag(0.0, "As exported; for --checkpoint.")
    ask: AskConfig = field(default_factory=AskConfig)


@dataclass(frozen=True)
class Row:
    """One way to answer the file."""

    name: str
    answers: dict[str, str]
    exact: float
    f1: float
    per_second: float


async def ask_file(config: AskConfig, path: str) -> dict[str, str]:
    """Ask every question of a SQuAD file; returns {id: text}. Raises UsageError for one that is not answered."""
    questions, answers = read_file_questions(path), {}
    async with open_asker(config) as asker:
        replies = in_order(asker.ask, [item for _, item in questions], config.concurrency)
        with progress(total=len(questions), description="Asking", unit="question") as bar:
            async for reply in replies:
                qas_id = questions[len(answers)][0]
                if "error" in reply:
                    raise UsageError(f"question {qas_id!r}: {reply['error']}")
                answers[qas_id] = reply["answer"]
                bar.update()
    return answers


def write_predictions(answers: dict[str, str], path: str) -> None:
    """Write {id: text} as run_squad.py does."""
    with naming_os_errors(f"--output {path}"), replacing(Path(path)) as temporary:
        temporary.write_text(json.dumps(answers, indent=4) + "\n", encoding="utf8")


def answer_offline(config: ScoreConfig) -> dict[str, str]:
    """Answer the file with the trained checkpoint, as run_squad.py would."""
    import torch  # imported here, with what needs it: asking does not

    from bert.distributed import World
    from bert.finetune.predict import predict
    from bert.serve.tasks import ServedConfig, open_checkpoint
    from bert.squad.answers import AnswerConfig
    from bert.squad.examples import read_squad_examples
    from bert.squad.task import WindowConfig, answer, encode_questions
    from bert.train.precision import Precision, PrecisionConfig

    windows = WindowConfig(config.max_seq_length, config.doc_stride, config.max_query_length)
    served = open_checkpoint(ServedConfig(config.checkpoint or "", "qa", **vars(windows)))

    class Objective(torch.nn.Module):
        per_token, width = True, 2

        def predict(self, batch: Any) -> torch.Tensor:
            return torch.stack(served.model.predict(batch), -1)

    version_2 = served.settings["version_2_with_negative"]
    examples = read_squad_examples(config.predict_file, False, version_2)
    questions = encode_questions(examples, windows, served.start.tokenizer, version_2)
    cpu = torch.device("cpu")
    outputs = predict(
        Objective(), questions.sequences, 8, Precision(PrecisionConfig(), cpu), World(0, 0, 1, cpu), show=True
    )
    best = AnswerConfig(
        max_answer_length=config.max_answer_length,
        version_2_with_negative=version_2,
        null_score_diff_threshold=config.null_score_diff_threshold,
    )
    return {each.qas_id: each.text for each in answer(questions, outputs, best)}


def score(name: str, path: str, answers: dict[str, str], seconds: float) -> Row:
    """Score answers by the rules of the file's version: 2.0 if a question has no right answer."""
    gold = read_gold(path)
    scores = evaluate_v1(gold, answers) if all(gold.values()) else evaluate_v2(gold, answers)
    exact = scores.get("exact_match", scores.get("exact", 0.0))
    return Row(name, answers, exact, scores["f1"], len(answers) / seconds)


async def compare(config: ScoreConfig) -> list[Row]:
    """Return a row for the server and, with --checkpoint, one for the checkpoint."""
    began = time.perf_counter()
    answers = await ask_file(config.ask, config.predict_file)
    rows = [score("served", config.predict_file, answers, time.perf_counter() - began)]
    if config.checkpoint is not None:
        began = time.perf_counter()
        offline = answer_offline(config)
        rows.append(score("offline", config.predict_file, offline, time.perf_counter() - began))
    return rows


def differing(rows: list[Row]) -> list[str]:
    """Return the ids of questions whose served answer is not the offline one."""
    served, *others = rows
    return [qas_id for qas_id, text in served.answers.items() if any(row.answers[qas_id] != text for row in others)]


def render(rows: list[Row]) -> str:
    """Return the table, and below it the first answers that differ."""
    lines = [f"{'':10}{'exact match':>12}{'F1':>8}{'texts that differ':>19}{'questions/s':>13}"]
    wrong = differing(rows)
    for number, row in enumerate(rows):
        count = str(len(wrong)) if number == 0 and len(rows) > 1 else ""
        lines.append(f"{row.name:10}{row.exact:>12.2f}{row.f1:>8.2f}{count:>19}{row.per_second:>13.1f}")
    lines += [f"{each}: " + ", ".join(f"{row.name} {row.answers[each]!r}" for row in rows) for each in wrong[:SHOWN]]
    return "\n".join(lines)
