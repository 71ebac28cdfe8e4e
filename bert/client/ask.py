"""Questions for a running server: to the gateway over HTTP, or straight to Triton over gRPC.

async with open_asker(AskConfig()) as asker:
    reply = await asker.ask({"question": "Who wrote it?", "context": "Ada wrote it."})
    reply["answer"], reply["start"], reply["end"]       # "Ada", 0, 3; or reply["error"], one line
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

import httpx

from bert.client.triton_client import Failed, TritonClient, text_tensors
from bert.config import flag
from bert.errors import UsageError
from bert.squad.examples import load_dataset, paragraphs

TRIES = 10  # of a request that a busy server turns away
LONGEST_PAUSE = 5.0  # seconds
FIELDS = {"question": str, "context": str, "n_best": int}
TASK_FIELDS = {"text": str, "text_pair": str}  # of an object for a task
OPTIONAL = ("n_best", "text_pair")


@dataclass
class AskConfig:
    url: str = flag("http://127.0.0.1:8080", "The gateway.")
    grpc: str | None = flag(None, "Ask Triton itself instead, at HOST:PORT of its gRPC service.")
    concurrency: int = flag(16, "Questions in flight.", minimum=1)
    timeout: float = flag(60.0, "Seconds to wait for an answer.", minimum=0.1)


class Asker(Protocol):
    """A server that answers questions."""

    async def ask(self, item: dict[str, Any]) -> dict[str, Any]: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *error: object) -> None: ...


def open_asker(config: AskConfig, task: str | None = None) -> Asker:
    """Return the client that the flags name; entering it raises UsageError where no server answers.

    With a task it takes {"text": ..., "text_pair": ...} and returns the label, its probability and all scores.
    """
    if config.grpc is not None:
        model = "bert_qa" if task is None else "bert_multitask"
        return TritonAsker(TritonClient(config.grpc, model, seconds=config.timeout), task)
    return GatewayAsker(config.url, config.timeout, task)


class GatewayAsker:
    """The gateway. A busy one is asked again after the pause that it names."""

    def __init__(self, url: str, seconds: float, task: str | None = None) -> None:
        if not url.startswith(("http://", "https://")):
            raise UsageError(f"--url {url}: expected http://HOST:PORT")
        self.url, self.seconds = url.rstrip("/"), seconds
        self.named = {} if task is None else {"task": task}

    async def __aenter__(self) -> Self:
        limits = httpx.Limits(max_connections=None)  # the number of questions in flight is the limit
        self.http = httpx.AsyncClient(base_url=self.url, timeout=self.seconds, limits=limits, trust_env=False)
        try:
            await self.http.get("/healthz")
        except httpx.HTTPError as error:
            await self.http.aclose()
            raise self.absence() from error
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.http.aclose()

    def absence(self) -> UsageError:
        return UsageError(f"--url {self.url}: no server answers there; start one with `bash triton/serve.sh`")

    async def post(self, body: bytes) -> httpx.Response:
        """Send a body once; raises httpx's errors."""
        path = "/v1/classify" if self.named else "/v1/answer"
        return await self.http.post(path, content=body, headers={"content-type": "application/json"})

    async def ask(self, item: dict[str, Any]) -> dict[str, Any]:
        """Return the answer, or ``{"error": line}``."""
        reply = None
        for _ in range(TRIES):
            try:
                reply = await self.post(json.dumps({**item, **self.named}).encode())
            except httpx.ConnectError as error:
                raise self.absence() from error
            except httpx.HTTPError as error:
                return {"error": f"{type(error).__name__}: {error}".rstrip(": ")}
            pause = reply.headers.get("retry-after", "")
            if reply.status_code not in (429, 503) or not pause.isdecimal():
                break
            await asyncio.sleep(min(float(pause), LONGEST_PAUSE))
        assert reply is not None
        return answer_in(reply)


def answer_in(reply: httpx.Response) -> dict[str, Any]:
    """Return the object in a reply; a reply of another form becomes an error."""
    try:
        values = reply.json()
    except ValueError:
        values = None
    expected = {"answer", "label"} if reply.is_success else {"error"}
    if isinstance(values, dict) and not expected.isdisjoint(values):
        return values
    return {"error": f"HTTP {reply.status_code} without a reason; is this the gateway?"}


class TritonAsker:
    """A text model on Triton, with the same replies as the gateway's."""

    def __init__(self, triton: TritonClient, task: str | None = None) -> None:
        self.triton, self.named = triton, {} if task is None else {"task": task, "text_pair": ""}

    async def __aenter__(self) -> Self:
        await self.triton.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.triton.__aexit__(*error)

    async def ask(self, item: dict[str, Any]) -> dict[str, Any]:
        """Return the answer, or ``{"error": line}``."""
        try:
            tensors = text_tensors({**self.named, **item})
        except UnicodeEncodeError:
            return {"error": "half a character, such as \\ud800 alone"}
        for attempt in range(TRIES):
            try:
                return _plain(await self.triton.infer(tensors))
            except Failed as error:
                if not error.busy or attempt == TRIES - 1:
                    return {"error": str(error)}
                await asyncio.sleep(min(0.1 * 2**attempt, LONGEST_PAUSE))
        raise AssertionError


def _plain(outputs: dict[str, Any]) -> dict[str, Any]:
    probability = float(outputs["probability"][0, 0])
    if "label" in outputs:
        label, scores = (outputs[name][0, 0].decode() for name in ("label", "scores"))
        return {"label": label, "probability": probability, "scores": json.loads(scores)}
    start, end = int(outputs["start"][0, 0]), int(outputs["end"][0, 0])
    place = {"start": start, "end": end} if start >= 0 else {"start": None, "end": None}
    answer, nbest = (outputs[name][0, 0].decode() for name in ("answer", "nbest"))
    return {"answer": answer, **place, "probability": probability, "nbest": json.loads(nbest)}


def parse_question(line: str, fields: Mapping[str, type] = FIELDS) -> dict[str, Any]:
    """Read an object with "question", "context" and, optional, "n_best", or other ``fields``; raises UsageError."""
    try:
        item = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"not JSON ({error})") from error
    if not isinstance(item, dict):
        raise UsageError(f"expected an object, found {type(item).__name__}")
    for name, kind in fields.items():
        if name not in OPTIONAL and name not in item:
            raise UsageError(f"{name}: missing")
        if name in item and (not isinstance(item[name], kind) or isinstance(item[name], bool)):
            raise UsageError(f"{name}: expected {'text' if kind is str else 'a whole number'}")
    if unknown := [name for name in item if name not in fields]:
        raise UsageError(f"{unknown[0]}: unknown field, expected {', '.join(fields)}")
    return item


def read_file_questions(path: str) -> list[tuple[str, dict[str, Any]]]:
    """Read a SQuAD file: (id, what to ask) of every question, in order."""
    return [
        (question["id"], {"question": question["question"], "context": part.context, "n_best": 1})
        for part in paragraphs(load_dataset(path), path)
        for _, question in part.questions
    ]
