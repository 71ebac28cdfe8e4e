"""The one public port: answers, classes and embeddings as JSON, a page, health and metrics.

::

    client ──▶ Observe ──▶ Guard ──▶ routes ──▶ Watchdog ──▶ Upstream ──▶ Triton, on loopback
               counts      limits    JSON       reloads      gRPC
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from bert import __version__
from bert.config import flag
from bert.gateway.limits import App, Guard, Limits
from bert.gateway.refusal import Refusal, error_body
from bert.gateway.texts import KINDS, MULTITASK, Error, Kind, Tasks, parse_item, parse_json, route
from bert.gateway.traffic import METRICS_TYPE, Meters, Observe
from bert.gateway.upstream import Upstream
from bert.gateway.watchdog import OK, Watchdog, WatchdogConfig

ADMIN_KEY = "BERT_SERVE_ADMIN_KEY"  # in the environment: a flag would show it in the list of processes
PAGE = {"/": ("index.html", "text/html"), "/page.css": ("page.css", "text/css")}
PAGE["/page.js"] = ("page.js", "text/javascript")
METRICS_SECONDS = 1.0
OnStart = Callable[[Watchdog], Coroutine[Any, Any, None]]


@dataclass
class GatewayConfig:
    triton: str = flag("127.0.0.1:8001", "Address of Triton's gRPC service.")
    metrics_url: str | None = flag(None, "Triton's metrics, to be added to /metrics: http://127.0.0.1:8002/metrics.")
    limits: Limits = field(default_factory=Limits)
    watchdog: WatchdogConfig = field(default_factory=WatchdogConfig)


class Gateway(NamedTuple):
    """What the routes share while the server runs."""

    limits: Limits
    watchdog: Watchdog
    meters: Meters
    metrics_url: str | None
    http: httpx.AsyncClient


def build_app(config: GatewayConfig, page: Path, on_start: OnStart | None = None) -> App:
    """Build the ASGI application. ``page`` is the folder of the page; ``on_start`` runs beside the server."""
    meters = Meters()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        upstream = Upstream(config.triton, os.environ.get(ADMIN_KEY))
        watchdog = Watchdog(upstream, config.watchdog, meters)
        async with httpx.AsyncClient(timeout=METRICS_SECONDS, trust_env=False) as http:
            app.state.gateway = Gateway(config.limits, watchdog, meters, config.metrics_url, http)
            tasks = [asyncio.create_task(watchdog.run())]
            if on_start is not None:
                tasks.append(asyncio.create_task(on_start(watchdog)))
            yield
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await watchdog.close()
        await upstream.close()

    # No docs pages: theirs load scripts from a CDN, which the policy forbids.
    app = FastAPI(
        title="BERT", version=__version__, docs_url=None, redoc_url=None, redirect_slashes=False, lifespan=lifespan
    )
    for kind_of_error in (Refusal, HTTPException, Exception):
        app.add_exception_handler(kind_of_error, show_error)
    for name in KINDS:
        add_kind(app, name)
    add_page(app, page)
    app.get("/v1/tasks", response_model=Tasks, responses={"default": {"model": Error}})(tasks)
    app.get("/healthz", responses={503: {"description": "A model does not answer."}})(healthz)
    app.get("/metrics", response_class=Response)(metrics)
    routes = {route.path for route in app.routes}  # type: ignore[attr-defined]
    return Observe(Guard(app, config.limits), meters, routes)


def add_kind(app: FastAPI, name: str) -> None:
    kind = KINDS[name]

    async def respond(request: Request) -> JSONResponse:
        gateway: Gateway = request.app.state.gateway
        body = parse_json(await request.body())
        deadline = asyncio.get_running_loop().time() + gateway.limits.deadline_seconds
        if isinstance(body, list):
            return JSONResponse(await answer_list(gateway, kind, body, deadline))
        return JSONResponse(await answer_one(gateway, kind, body, deadline))

    asked = kind.asked.model_json_schema()
    schema = {"anyOf": [asked, {"type": "array", "items": asked}]}
    app.post(
        f"/v1/{name}",
        operation_id=name,
        responses={
            200: {"model": kind.answered | list[kind.answered | Error]},
            "default": {"model": Error, "description": "One line that says why there is no answer."},
        },
        openapi_extra={"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}},
    )(respond)


async def answer_one(gateway: Gateway, kind: Kind, item: Any, deadline: float) -> dict[str, Any]:
    values = parse_item(kind, item, gateway.limits)
    left = max(0.0, deadline - asyncio.get_running_loop().time())
    return kind.decode(await gateway.watchdog.infer(*route(kind, values), left))


async def answer_list(gateway: Gateway, kind: Kind, items: list[Any], deadline: float) -> list[dict[str, Any]]:
    """Answer each object by itself. One that fails leaves its error in its place; if all fail, so does the request."""
    if len(items) > gateway.limits.max_list:
        raise Refusal(422, f"body: {len(items)} objects, expected at most {gateway.limits.max_list} (--max_list)")
    turns = asyncio.Semaphore(gateway.limits.list_parallel)

    async def answer(item: Any) -> dict[str, Any] | Refusal:
        async with turns:
            try:
                return await answer_one(gateway, kind, item, deadline)
            except Refusal as refusal:
                return refusal

    async with asyncio.TaskGroup() as group:  # a client that leaves cancels them all
        tasks = [group.create_task(answer(item)) for item in items]
    answers = [task.result() for task in tasks]
    refusals = [each for each in answers if isinstance(each, Refusal)]
    if refusals and len(refusals) == len(answers):
        raise refusals[0]
    return [{"error": each.line} if isinstance(each, Refusal) else each for each in answers]


def add_page(app: FastAPI, folder: Path) -> None:
    for path, (name, media_type) in PAGE.items():
        # A Response is an ASGI application, so the files are read once and no path of a client reaches the disk.
        file = Response((folder / name).read_bytes(), media_type=media_type, headers={"cache-control": "no-cache"})
        app.add_route(path, file, methods=["GET"], include_in_schema=False)  # type: ignore[arg-type]


async def tasks(request: Request) -> JSONResponse:
    """List the tasks of /v1/classify and their labels."""
    watchdog = request.app.state.gateway.watchdog
    state = (await watchdog.check()).get(MULTITASK)
    if state is None:
        raise Refusal(404, f"this server has no model {MULTITASK}")
    if watchdog.tasks is None:
        raise Refusal(503, state, retry_after=1)
    return JSONResponse({"tasks": watchdog.tasks})


async def healthz(request: Request) -> JSONResponse:
    """Ask every text model for an inference, and tell how each of them is."""
    models = await request.app.state.gateway.watchdog.check()
    wrong = dict.fromkeys(state for state in models.values() if state != OK)  # each once
    if models and not wrong:
        return JSONResponse({"status": OK, "models": models})
    return JSONResponse({"status": "; ".join(wrong) or "no text model is loaded", "models": models}, 503)


async def metrics(request: Request) -> Response:
    """Return this server's metrics and then Triton's, in Prometheus' text format."""
    gateway: Gateway = request.app.state.gateway
    text = gateway.meters.text()
    if gateway.metrics_url:
        try:
            reply = await gateway.http.get(gateway.metrics_url)
            text += reply.raise_for_status().content
        except httpx.HTTPError:
            text += b"# Triton's metrics are not reachable\n"
    return Response(text, headers={"content-type": METRICS_TYPE})


async def show_error(request: Request, error: Exception) -> Response:
    status, line, headers = 500, "internal error", None  # the traceback goes to the log only
    if isinstance(error, Refusal):
        status, line, headers = error.status, error.line, error.headers
    elif isinstance(error, HTTPException):
        status, line, headers = error.status_code, str(error.detail), error.headers
    return Response(error_body(line), status, headers, "application/json")
