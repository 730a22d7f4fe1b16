"""The web application of one task: its route, health, and documentation.

It does not know Ray, nor how many copies of it run.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from types import MappingProxyType
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi_offline import FastAPIOffline

from llmray.job.errors import LlmrayError, RequestError
from llmray.tasks.base import Answer
from serve import openapi, wire
from serve.batcher import Batcher
from serve.deadline import WITHIN
from serve.gate import Gate
from serve.limits import MAX_PICTURE_BODY_BYTES, MAX_TEXT_BODY_BYTES
from serve.shapes import EVENT_STREAM, GENERATING, ROUTES, SHED, SHED_MOST_MS, Identity, failure, sse
from serve.web import Envelope, answer_errors, body_of, post, refusal

SMALL_BYTES = 16 << 10
"""Text that is read in less time than another thread takes to be asked; so small a picture may unpack to megabytes."""


def build(
    task: str,
    identity: Identity,
    batcher: Batcher,
    gate: Gate = Gate(),  # noqa: B008 frozen
    about: Mapping[str, Any] = MappingProxyType({}),
    *,
    alias: str | None = None,
) -> FastAPI:
    """One task's application behind `gate`.  Every answer's headers say which model it is.

    `about`: what is known of the model beside that, for `/info`.  `alias`: the model's name below the task's route.
    """
    told = {"task": task, "model": identity.name, "version": identity.version, "engine": identity.engine}
    route = f"{ROUTES[task]}/{alias}" if alias else ROUTES[task]
    title = f"llmray {route}"
    app = FastAPIOffline(title=title, version=identity.version, redoc_url=None, redirect_slashes=False)
    limit = MAX_PICTURE_BODY_BYTES if task == "captioning" else MAX_TEXT_BODY_BYTES

    async def ask(request: Request) -> Response:
        try:  # before the work of reading what would be refused
            batcher.require_room()
            if task not in GENERATING:  # whose streams wait for no pass
                batcher.require_time()
        except RequestError as full:
            return _shed(full, batcher)
        if task not in GENERATING:
            batcher.require_time(within_s=request.scope[WITHIN])
        body = await body_of(request, limit)
        given = task, body, request.headers.get("content-type", "")
        here = task != "captioning" and len(body) <= SMALL_BYTES
        call = wire.read(*given) if here else await asyncio.to_thread(wire.read, *given)
        if call.stream:
            return await _streamed(batcher, call)
        return JSONResponse(wire.write(task, call, await batcher.answer(call.requests)))

    async def healthz() -> dict[str, str]:
        return {"status": "ready", **told}

    async def info() -> dict[str, Any]:
        return {**told, "name": alias, "lineage": identity.lineage, **about}

    post(app, "/", ask, openapi.described(task))
    app.add_api_route("/healthz", healthz, methods=["GET"], summary="Whether this model can answer")
    app.add_api_route("/info", info, methods=["GET"], summary="What this model is, and what it scored")
    gate.before(app, route, failure)
    app.add_middleware(Envelope, headers=identity.headers(), name=alias)
    answer_errors(app, failure)
    return app


def _shed(full: RequestError, batcher: Batcher) -> Response:
    """The refusal, and for how long the next ones are not worth asking for: half a pass, so that none finds the model
    idle, neither here nor at a replica that is as fast."""
    response = refusal(full, failure)
    response.headers[SHED] = f"{min(SHED_MOST_MS, 500 * batcher.took_s):.0f}"
    return response


async def _streamed(batcher: Batcher, call: wire.Call) -> Response:
    """Wait for the first piece before the status is sent, so that a bad request still gets its own."""
    pieces = batcher.stream(call.requests[0])
    first = await anext(pieces)
    return StreamingResponse(_events(call, first, pieces), headers=EVENT_STREAM)


async def _events(call: wire.Call, piece: str | Answer, rest: AsyncIterator[str | Answer]) -> AsyncIterator[str]:
    whole: list[str] = []
    try:
        while isinstance(piece, str):
            whole.append(piece)
            yield wire.event(len(whole), piece)
            piece = await anext(rest)
        yield wire.last_event(call, len(whole) + 1, "".join(whole), piece)
    except LlmrayError as error:
        yield sse(failure(str(error), 500))
