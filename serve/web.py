"""What every application shares: bodies within limits, errors in JSON, and headers that name the model.

It does not know what is asked or answered.
"""

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeAlias

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llmray.job.errors import LlmrayError, RequestError
from serve.limits import DRAIN_BYTES

Failure: TypeAlias = Callable[[str, int], Mapping[str, Any]]
"""Message and status → body."""
RETRY_AFTER_S = 1
"""When to come back to a server that has no capacity."""


class Envelope:
    """Adds headers to every answer, and takes the bare prefix (`/qa`) for its root (`/qa/`).

    `name`: below which the root's paths are found as well (`/translate/en-de/docs`).
    """

    def __init__(self, app: ASGIApp, headers: dict[str, str], name: str | None = None) -> None:
        self.app = app
        self.headers = headers
        self.name = name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self.headers)
            await send(message)

        root = scope.get("root_path", "")
        path = scope["path"].removeprefix(root)
        if self.name and path.partition("/")[2].partition("/")[0] == self.name:
            path = path.removeprefix(f"/{self.name}")
        return await self.app({**scope, "path": root + (path or "/")}, receive, send_named)


class _Direct(APIRoute):
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        return self.endpoint


def post(app: FastAPI, path: str, ask: Callable[[Request], Any], described: Mapping[str, Any]) -> None:
    """A route whose `ask` is given the request as it is: FastAPI takes longer to do so than `ask` to read it."""
    app.router.add_api_route(
        path, ask, methods=["POST"], response_model=None, route_class_override=_Direct, **described
    )


async def body_of(request: Request, limit: int) -> bytes:
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


def refusal(error: RequestError, failure: Failure, again_s: int | None = None) -> Response:
    """The answer that says what is wrong and, where it is the moment, in how many seconds to try again."""
    again_s = again_s or (RETRY_AFTER_S if error.status == 503 else None)
    headers = {"retry-after": str(again_s)} if again_s else None
    return JSONResponse(failure(str(error), error.status), error.status, headers)


def answer_errors(app: FastAPI, failure: Failure) -> None:
    """Errors as JSON, in the form that `failure` gives them."""

    @app.exception_handler(RequestError)
    async def refused(request: Request, error: RequestError) -> Response:
        return refusal(error, failure)

    @app.exception_handler(LlmrayError)
    async def broken(request: Request, error: LlmrayError) -> Response:
        return JSONResponse(failure(str(error), 500), 500)

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        return JSONResponse(failure(_said(request, error), error.status_code), error.status_code, error.headers)

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=499)


def _said(request: Request, error: HTTPException) -> str:
    here = request.scope.get("root_path", "")
    if error.status_code == 405:
        return f"{request.method} is not possible at {request.url.path}; {here}/docs says what is"
    if error.status_code == 404:
        return f"{request.url.path} does not exist; see {here}/docs"
    return str(error.detail)
