"""What tests of serving share."""

import socket
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator

import pytest
import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from llmray.job.schema import Endpoint, Limits
from llmray.model.generate import Stream
from llmray.tasks.base import Request
from serve.batcher import Batcher
from serve.shapes import GENERATING, PREFIXES, Identity, Part


@pytest.fixture
def endless() -> tuple[Callable[[Request], Stream], threading.Event]:
    """A model that writes for ever, and whether it was stopped."""
    closed = threading.Event()

    def stream(request: Request) -> Stream:
        try:
            while True:
                yield "on"
        finally:
            closed.set()

    return stream, closed


class Local:
    """A model of this process, as `/v1` asks it."""

    def __init__(self, task: str, known: Identity, batcher: Batcher) -> None:
        self.task, self.known, self.batcher = task, known, batcher

    async def identity(self) -> Identity:
        return self.known

    def respond(self, body: bytes) -> AsyncGenerator[Part, None]:
        from serve import completions

        return completions.respond(self.task, self.known, self.batcher, body)


def applications(models: dict[str, str]) -> Iterator[tuple[str, FastAPI]]:
    """Every route with a real model behind it, without Ray."""
    from serve import front, replica
    from serve.gate import Gate

    generating = {}
    for task, folder in models.items():
        end = Endpoint.model_validate({"task": task, "model": folder})
        predictor = replica.load(end, folder)
        batcher, known = replica.queue(end, predictor, Limits()), replica.identity(predictor, folder)
        if task in GENERATING:
            generating[task] = Local(task, known, batcher)
        yield PREFIXES[task], replica.application(end, known, batcher, Gate(), predictor.about)
    yield PREFIXES["openai"], front.build(generating)


def routed(apps: dict[str, FastAPI]) -> ASGIApp:
    """Each application under its prefix, in the way of Ray Serve."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        prefix = "/" + scope["path"].split("/")[1]
        await apps[prefix]({**scope, "root_path": prefix}, receive, send)

    return app


@pytest.fixture(scope="module")
def live(models: dict[str, str]) -> Iterator[str]:
    """The address at which every route answers over real HTTP."""
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    app = routed(dict(applications(models)))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    server.should_exit = True
    thread.join()
