"""The web application of one task: its route, health, and documentation.

It does not know Ray, nor how many copies of it run.
"""

import asyncio
from collections.abc import AsyncIterator

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi_offline import FastAPIOffline
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llmray.job.errors import LlmrayError, RequestError
from serve import openapi, wire
from serve.batcher import Batcher, BusyError
from serve.limits import DRAIN_BYTES, MAX_PICTURE_BODY_BYTES, MAX_TEXT_BODY_BYTES
from serve.shapes import ROUTES, failure

RETRY_AFTER_S = 1


def build(task: str, name: str, version: str, batcher: Batcher) -> FastAPI:
    """One task's application.  Every answer's headers name model and version."""
    title = f"llmray {ROUTES[task]}"
    app = FastAPIOffline(title=title, version=version, redoc_url=None, redirect_slashes=False)
    limit = MAX_PICTURE_BODY_BYTES if task == "captioning" else MAX_TEXT_BODY_BYTES

    async def ask(request: Request) -> Response:
        body = await _body(request, limit)
        call = await asyncio.to_thread(wire.read, task, body, request.headers.get("content-type", ""))
        if call.stream:
            return await _streamed(batcher, call)
        return JSONResponse(wire.write(task, call, await batcher.answer(call.requests)))

    async def healthz() -> dict[str, str]:
        return {"status": "ready", "task": task, "model": name, "version": version}

    app.add_api_route("/", ask, methods=["POST"], response_model=None, **openapi.described(task))
    app.add_api_route("/healthz", healthz, methods=["GET"], summary="Whether this model can answer")
    app.add_middleware(Envelope, headers={"x-llmray-model": name, "x-llmray-version": version})
    _answer_errors(app)
    return app


class Envelope:
    """Adds headers to every answer, and takes the bare prefix (`/qa`) for its root (`/qa/`)."""

    def __init__(self, app: ASGIApp, headers: dict[str, str]) -> None:
        self.app = app
        self.headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self.headers)
            await send(message)

        if scope["path"] == scope.get("root_path", ""):
            scope = {**scope, "path": scope["path"] + "/"}
        return await self.app(scope, receive, send_named)


async def _body(request: Request, limit: int) -> bytes:
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= limit:
            chunks.append(chunk)
        elif size > DRAIN_BYTES:
            break
    if size > limit:
        raise RequestError(f"The body is larger than the {limit:,} bytes that this route reads", 413)
    return b"".join(chunks)


async def _streamed(batcher: Batcher, call: wire.Call) -> Response:
    """Wait for the first piece before the status is sent, so that a bad request still gets its own."""
    pieces = batcher.stream(call.requests[0])
    first = await anext(pieces, None)
    headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
    return StreamingResponse(_events(first, pieces), media_type="text/event-stream", headers=headers)


async def _events(first: str | None, pieces: AsyncIterator[str]) -> AsyncIterator[str]:
    whole: list[str] = []
    try:
        if first is not None:
            whole.append(first)
            yield wire.event(1, first)
            async for piece in pieces:
                whole.append(piece)
                yield wire.event(len(whole), piece)
        yield wire.event(len(whole) + 1, "", whole="".join(whole))
    except LlmrayError as error:
        yield wire.sse(failure(str(error), 500))


def _answer_errors(app: FastAPI) -> None:
    def failed(message: str, status: int, headers: dict[str, str] | None = None) -> Response:
        return JSONResponse(failure(message, status), status, headers)

    @app.exception_handler(RequestError)
    async def refused(request: Request, error: RequestError) -> Response:
        return failed(str(error), error.status)

    @app.exception_handler(BusyError)
    async def busy(request: Request, error: BusyError) -> Response:
        return failed(str(error), 503, {"retry-after": str(RETRY_AFTER_S)})

    @app.exception_handler(LlmrayError)
    async def broken(request: Request, error: LlmrayError) -> Response:
        return failed(str(error), 500)

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        return failed(_said(request, error), error.status_code, dict(error.headers or {}))

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=499)


def _said(request: Request, error: HTTPException) -> str:
    here = request.scope.get("root_path", "")
    if error.status_code == 405:
        return f"{request.method} is not possible here; {here} takes POST, {here}/docs explains it"
    if error.status_code == 404:
        return f"{request.url.path} does not exist; see {here}/docs"
    return str(error.detail)
