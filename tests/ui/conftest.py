"""Stand-in endpoints: a real HTTP server whose answers have the wire's shape.  They are the page's neighbour."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

STORY = [" red", " circle", " above", " a", " small", " blue", " square", "."]


class Endpoints:
    """Answers by the book unless a route is told in `trouble` to misbehave; remembers what it was sent."""

    def __init__(self) -> None:
        self.behave()
        app = FastAPI()
        app.add_api_route("/-/routes", self._routes, methods=["GET"])
        app.add_api_route("/{route}/healthz", self._health, methods=["GET"])
        app.add_api_route("/{route}/info", self._info, methods=["GET"])
        app.add_api_route("/{route}/{name}/info", self._info, methods=["GET"])
        app.add_api_route("/{route}", self._answer, methods=["POST"])
        app.add_api_route("/{route}/{name}", self._answer, methods=["POST"])
        self.server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
        self.thread = threading.Thread(target=self.server.run, daemon=True)

    def behave(self) -> None:
        """Forget everything."""
        self.trouble: dict[str, str] = {}
        self.answers: dict[str, object] = {}
        self.translators: list[str] = []
        self.asked: list[str] = []
        self.sent: list[dict] = []
        self.headers: list[dict[str, str]] = []
        self.tokens, self.token_s, self.streamed = STORY, 0.02, 0

    def start(self) -> None:
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        self.url = f"http://127.0.0.1:{self.server.servers[0].sockets[0].getsockname()[1]}"

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(5)

    def wait_until_quiet(self) -> None:
        """Until a stream that nobody reads has stopped."""
        before = -1
        while self.streamed != before:
            before = self.streamed
            time.sleep(10 * self.token_s)

    def _routes(self) -> dict[str, str]:
        names = ["", *(f"/{name}" for name in self.translators[1:])]
        others = {"/qa": "qa", "/caption": "captioning", "/generate": "causal_lm", "/v1": "openai"}
        return {f"/translate{name}": f"translation{name}" for name in names} | others

    def _health(self, route: str) -> Response:
        if self.trouble.get(f"/{route}") == "absent":
            return Response(f"Path '/{route}' not found.", 404, media_type="text/plain")
        body = {"status": "ready", "task": route, "model": f"shapes-{route}", "version": "3"}
        return JSONResponse(body, headers=self._names(route))

    def _info(self, route: str) -> Response:
        if self.trouble.get(f"/{route}") == "absent" or route not in ("qa", "translate", "caption", "generate"):
            return Response(f"Path '/{route}' not found.", 404, media_type="text/plain")
        told = {"task": route, "model": f"shapes-{route}", "version": "3", "metrics": {"exact_match": 95.25}}
        if self.translators and route == "translate":
            told["name"] = self.translators[0]
        return JSONResponse(told | {"created": "2026-01-02T03:04:05+00:00"}, headers=self._names(route))

    def _names(self, route: str) -> dict[str, str]:
        return {"x-llmray-model": f"shapes-{route}", "x-llmray-version": "3"}

    async def _answer(self, route: str, request: Request) -> Response:
        self.asked.append(request.url.path)
        content = await request.body()
        is_json = request.headers.get("content-type") == "application/json"
        self.sent.append(json.loads(content) if is_json else {"bytes": content})
        self.headers.append(dict(request.headers))
        refusal = await self._misbehave(route)
        if refusal is not None:
            return refusal
        if route == "caption" and not content.startswith((b"\x89PNG", b"\xff\xd8", b"RIFF")):
            error = "body: the bytes are not a picture; send a PNG, JPEG, WebP, GIF or BMP"
            return JSONResponse({"error": error, "error_type": "validation"}, 415, self._names(route))
        if route == "generate":
            return StreamingResponse(self._stream(), media_type="text/event-stream", headers=self._names(route))
        return JSONResponse(self._by_the_book(route), headers=self._names(route))

    def _by_the_book(self, route: str) -> object:
        if f"/{route}" in self.answers:
            return self.answers[f"/{route}"]
        inputs = self.sent[-1].get("inputs")
        if route == "qa":
            word = next(
                (each for each in ("red", "purple") if each in inputs["context"]), inputs["context"].split()[-2]
            )
            start = inputs["context"].index(word)
            best = {"answer": word, "score": 0.97, "start": start, "end": start + len(word)}
            return [best, {"answer": inputs["context"][:5], "score": 0.02, "start": 0, "end": 5}]
        if route == "translate":
            return [{"translation_text": "Es gibt einen großen roten Kreis über einem kleinen gelben Quadrat."}]
        return [{"generated_text": "a large red circle above a small yellow square"}]

    async def _misbehave(self, route: str) -> Response | None:
        match self.trouble.get(f"/{route}"):
            case None | "cut" | "midway":
                return None
            case "absent":
                return Response(f"Path '/{route}' not found.", 404, media_type="text/plain")
            case "garbage":
                return Response("<html>hello</html>", media_type="text/html")
            case "slow":
                await asyncio.sleep(1.5)
                return None
            case status:
                body = {"error": f"{route} says {status}", "error_type": "validation"}
                return JSONResponse(body, int(status), {"retry-after": "7"})

    def _stream(self) -> Iterator[str]:
        trouble = self.trouble.get("/generate")
        for index, text in enumerate(self.tokens, 1):
            time.sleep(self.token_s)
            self.streamed = index
            yield _event(index, text, None)
            if trouble == "midway" and index == 2:
                yield 'data: {"error":"the model broke","error_type":"generation"}\n\n'
                return
            if trouble == "cut" and index == 2:
                return
        yield _event(len(self.tokens) + 1, "", "".join(self.tokens))


def _event(index: int, text: str, whole: str | None) -> str:
    token = {"id": None, "text": text, "logprob": None, "special": whole is not None}
    return f"data: {json.dumps({'index': index, 'token': token, 'generated_text': whole, 'details': None})}\n\n"


@pytest.fixture(scope="session")
def stand_in() -> Iterator[Endpoints]:
    running = Endpoints()
    running.start()
    yield running
    running.stop()


@pytest.fixture
def endpoints(stand_in: Endpoints) -> Endpoints:
    stand_in.behave()
    return stand_in


@pytest.fixture
def free_port() -> Iterator[int]:
    """A port that nobody listens on; held, so that nobody starts to."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]
