"""What clients may ask: the fields of each kind of request, the model that answers, and the answer's form."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bert.gateway.limits import Limits
from bert.gateway.refusal import Refusal


class Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Question(Asked):
    question: str = Field(examples=["Who wrote the first program?"])
    context: str = Field(examples=["Ada Lovelace wrote the first program in 1843."])
    n_best: int = Field(default=5, ge=1, le=20, description="Most answers to return.")


class Classified(Asked):
    task: str | None = Field(default=None, description="A name of /v1/tasks; without it the classifier answers.")
    text: str = Field(examples=["A quiet, lovely film."])
    text_pair: str | None = Field(default=None, description="The second text, for a classifier of pairs.")


class Embedded(Asked):
    text: str = Field(examples=["A quiet, lovely film."])


class Span(BaseModel):
    text: str
    start: int | None = Field(description="First character (code point) in the context; null: no answer.")
    end: int | None = Field(description="The character after the last.")
    probability: float


class Answer(BaseModel):
    answer: str = Field(description="Empty: the context has no answer.")
    start: int | None
    end: int | None
    probability: float
    nbest: list[Span]


class Score(BaseModel):
    label: str
    probability: float


class Label(Score):
    scores: list[Score] = Field(description="Best first.")


class Task(BaseModel):
    name: str
    labels: list[str] = Field(description="Empty for a regression, whose label is its value.")


class Tasks(BaseModel):
    tasks: list[Task]


class Embedding(BaseModel):
    embedding: list[float] = Field(description="Of length 1.")


class Error(BaseModel):
    error: str


class Kind(NamedTuple):
    """A kind of request. ``decode`` turns the model's outputs into the answer."""

    model: str
    asked: type[Asked]
    answered: type[BaseModel]
    decode: Callable[[dict[str, Any]], dict[str, Any]]


def decode_answer(outputs: dict[str, Any]) -> dict[str, Any]:
    start, end = outputs["start"], outputs["end"]
    span = {"start": start, "end": end} if start >= 0 else {"start": None, "end": None}
    picked = {"answer": outputs["answer"], **span, "probability": outputs["probability"]}
    return picked | {"nbest": json.loads(outputs["nbest"])}


def decode_label(outputs: dict[str, Any]) -> dict[str, Any]:
    return {**{name: outputs[name] for name in ("label", "probability")}, "scores": json.loads(outputs["scores"])}


def decode_embedding(outputs: dict[str, Any]) -> dict[str, Any]:
    return {"embedding": outputs["embedding"]}


def probe_text(number: int) -> dict[str, str]:
    return {"text": f"This is probe {number}."}


KINDS = {
    "answer": Kind("bert_qa", Question, Answer, decode_answer),
    "classify": Kind("bert_classifier", Classified, Label, decode_label),
    "embed": Kind("bert_embed", Embedded, Embedding, decode_embedding),
}
MULTITASK = "bert_multitask"
# The n-th probe of each model. Probes differ, so that no response cache answers them. Without a task, bert_multitask
# names those that it has.
PROBES: dict[str, Callable[[int], dict[str, str]]] = {
    "bert_qa": lambda n: {"question": f"Which probe is this? {n}", "context": f"This is probe {n}."},
    "bert_classifier": probe_text,
    "bert_embed": probe_text,
    MULTITASK: probe_text,
}


def route(kind: Kind, values: dict[str, str | int]) -> tuple[str, dict[str, str | int]]:
    """Return the model that answers and its inputs; tasks on one text and on two are to share batches."""
    return (MULTITASK, {"text_pair": "", **values}) if "task" in values else (kind.model, values)


def parse_json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except RecursionError:
        raise Refusal(400, "body: nested too deeply") from None
    except ValueError as error:  # also bytes that are not text
        raise Refusal(400, f"body: not JSON ({error})") from None


def parse_item(kind: Kind, item: Any, limits: Limits) -> dict[str, str | int]:
    """Return the model's inputs; raises a Refusal that names the field."""
    try:
        values = kind.asked.model_validate(item).model_dump(exclude_none=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "body"
        raise Refusal(422, f"{where}: {first['msg']}") from None
    for name, value in values.items():
        if isinstance(value, str):
            check_text(name, value, limits)
    return values


def check_text(name: str, text: str, limits: Limits) -> None:
    flag = f"max_{name if name in ('question', 'context') else 'text'}_chars"
    if len(text) > getattr(limits, flag):
        raise Refusal(422, f"{name}: {len(text)} characters, expected at most {getattr(limits, flag)} (--{flag})")
    if not text.strip():
        raise Refusal(422, f"{name}: expected some text")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise Refusal(422, f"{name}: half a character, such as \\ud800 alone")
