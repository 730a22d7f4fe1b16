"""OpenAI's routes in front of every model that generates: which model is meant, and its answer passed on.

It does not know Ray, nor where the models run, nor OpenAI's fields but for `model`.  It imports no torch: a process
that only passes on should start at once and stay small.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Protocol

from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from fastapi_offline import FastAPIOffline

from llmray.job.errors import RequestError
from serve import openapi
from serve.fields import kind, parsed, quoted
from serve.gate import Gate
from serve.limits import MAX_TEXT_BODY_BYTES
from serve.shapes import PREFIXES, Identity, openai_failure
from serve.web import answer_errors, body_of, post

PLACEHOLDERS = (None, "", "tgi", "dummy")
"""What clients call a model whose address says it all; `InferenceClient(model=URL)` sends "dummy"."""
PATHS = {"causal_lm": "/completions", "chat": "/chat/completions"}


class Model(Protocol):
    """A model that generates, wherever it runs."""

    async def identity(self) -> Identity:
        """Which model it is."""

    def respond(self, body: bytes) -> AsyncGenerator[Any, None]:
        """Status, headers and which model it is now, then the body piece by piece."""


def build(models: Mapping[str, Model], gate: Gate = Gate()) -> FastAPI:  # noqa: B008 frozen
    """The application in front of `models` (task → model), behind `gate`."""
    app = FastAPIOffline(title=f"llmray {PREFIXES['openai']}", redoc_url=None, redirect_slashes=False)
    began, known = int(time.time()), dict[str, Identity]()

    async def identities() -> dict[str, Identity]:
        found = {task: known.get(task) or await model.identity() for task, model in models.items()}
        known.update(found)
        return found

    async def judge(name: str | None, task: str) -> None:
        try:
            _judge(name, task, await identities())
        except RequestError:  # another version may have come, under another name
            known.clear()
            _judge(name, task, await identities())

    def passing(task: str) -> Any:
        async def ask(request: Request) -> Response:
            body = await body_of(request, MAX_TEXT_BODY_BYTES)
            await judge(await asyncio.to_thread(_name, body), task)
            parts = models[task].respond(body)
            status, headers, known[task] = await anext(parts)
            return StreamingResponse(parts, status, headers | known[task].headers())

        return ask

    def listed(name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": began, "owned_by": "llmray"}

    async def every() -> dict[str, Any]:
        names = sorted({each.name for each in (await identities()).values()})
        return {"object": "list", "data": [listed(name) for name in names]}

    async def one(name: str) -> dict[str, Any]:
        if name not in (names := [each.name for each in (await identities()).values()]):
            raise _unknown(name, names)
        return listed(name)

    async def healthz() -> dict[str, Any]:
        return {"status": "ready", "models": [each.name for each in (await identities()).values()]}

    for task, path in PATHS.items():
        post(app, path, passing(task), openapi.openai_described(task))
    app.add_api_route("/models", every, methods=["GET"], summary="The models that answer here")
    app.add_api_route("/models/{name}", one, methods=["GET"], **openapi.one_model_described())
    app.add_api_route("/healthz", healthz, methods=["GET"], summary="Whether the models can answer")
    gate.before(app, PREFIXES["openai"], openai_failure)
    answer_errors(app, openai_failure)
    return app


def _name(body: bytes) -> str | None:
    value = parsed(body)
    if not isinstance(value, dict):
        raise RequestError(f"the body must be a JSON object, not {kind(value)}")
    if not isinstance(name := value.get("model"), str | None):
        raise RequestError(f"model must be a string, not {kind(name)}")
    return name


def _judge(name: str | None, task: str, known: Mapping[str, Identity]) -> None:
    """Raise `RequestError` (404) where no model of that name answers the task's route."""
    here = [other for other, model in known.items() if name in PLACEHOLDERS or name == model.name]
    if task in here:
        return
    if here:
        there = f"{PREFIXES['openai']}{PATHS[here[0]]}"
        raise RequestError(f"{known[here[0]].name} was trained for {here[0]}; ask {there}", 404)
    raise _unknown(name or "", [model.name for model in known.values()])


def _unknown(name: str, names: list[str]) -> RequestError:
    return RequestError(f"model {quoted(name)} is not served here; there is {', '.join(names)}", 404)
