"""Ask a running server: one question, the questions of a SQuAD file, one text of a task, or objects from stdin.

    python triton/client.py --question "Who wrote it?" --context "Ada wrote it in 1843."
    python triton/client.py --predict_file dev-v1.1.json --output predictions.json
    python triton/client.py < questions.jsonl > answers.jsonl
    python triton/client.py --task mrpc --text "He left." --text_pair "He went away."
    python triton/client.py --task mrpc < pairs.jsonl > labels.jsonl

A line of stdin is {"question": ..., "context": ..., "n_best": 3}, or with --task {"text": ..., "text_pair": ...}; the
answers come in the same order, an object a line, or {"error": "why"}. It asks the gateway at --url, or Triton itself at
--grpc.
"""

import asyncio
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[1])

from bert.config import flag, run_command
from bert.errors import UsageError

try:
    from bert.client.ask import FIELDS, TASK_FIELDS, AskConfig, Asker, open_asker, parse_question
    from bert.client.flow import in_order, stdin_lines
    from bert.client.score import ask_file, write_predictions
except ModuleNotFoundError as missing:
    print(f"error: {missing.name} is not installed: run `bash triton/setup.sh`", file=sys.stderr)
    sys.exit(2)


@dataclass
class Config:
    question: str | None = flag(None, "The question.")
    context: str | None = flag(None, "The text that contains the answer.")
    n_best: int = flag(3, "Answers to show.", minimum=1, maximum=20)
    task: str | None = flag(None, "Task of bert_multitask to ask; the page and /v1/tasks list them.")
    text: str | None = flag(None, "Text for --task.")
    text_pair: str | None = flag(None, "The second text, for a task on pairs.")
    json: bool = flag(False, "Print the answer to --question or --text as a JSON object.")
    predict_file: str | None = flag(None, "SQuAD file whose questions to ask.")
    output: str | None = flag(None, "File for the answers to --predict_file: {id: text}.")
    ask: AskConfig = field(default_factory=AskConfig)


def main(config: Config) -> None:
    if (config.question is None) != (config.context is None):
        raise UsageError("--question and --context: expected both or neither")
    if (config.predict_file is None) != (config.output is None):
        raise UsageError("--predict_file and --output: expected both or neither")
    if (config.text is not None and config.task is None) or (config.text_pair is not None and config.text is None):
        raise UsageError("--text: expected with --task, and --text_pair with both")
    if config.task is not None and (config.question is not None or config.predict_file is not None):
        raise UsageError(f"--task {config.task}: expected --text or objects from stdin, not questions")
    if config.question is not None or config.text is not None:
        asyncio.run(ask_one(config))
    elif config.predict_file is not None and config.output is not None:
        answers = asyncio.run(ask_file(config.ask, config.predict_file))
        write_predictions(answers, config.output)
    else:
        asyncio.run(ask_lines(config))


async def ask_one(config: Config) -> None:
    item: dict[str, Any] = {"question": config.question, "context": config.context, "n_best": config.n_best}
    if config.task is not None:
        item = {"text": config.text} | ({} if config.text_pair is None else {"text_pair": config.text_pair})
    async with open_asker(config.ask, config.task) as asker:
        reply = await asker.ask(item)
    if config.json:
        print(json.dumps(reply, ensure_ascii=False))
    if "error" in reply:
        raise UsageError(reply["error"])
    if not config.json:
        for each in reply["nbest"] if config.task is None else reply["scores"]:
            print(f"{each['probability']:6.1%}  {each.get('label', each.get('text')) or '(no answer)'}")


async def ask_lines(config: Config) -> None:
    """Answer stdin line by line; a line that is wrong gets its error in its place."""
    fields = FIELDS if config.task is None else TASK_FIELDS
    async with open_asker(config.ask, config.task) as asker:
        async for reply in in_order(lambda line: ask_line(asker, line, fields), stdin_lines(), config.ask.concurrency):
            print(json.dumps(reply, ensure_ascii=False), flush=True)


async def ask_line(asker: Asker, line: bytes, fields: dict[str, type]) -> dict[str, Any]:
    try:
        return await asker.ask(parse_question(line.decode("utf-8-sig"), fields))
    except UnicodeDecodeError as error:
        return {"error": f"not UTF-8 (byte {error.start})"}
    except UsageError as error:
        return {"error": str(error)}


if __name__ == "__main__":
    run_command(main, Config)
