"""What a client reads first is an answer's head with its body, or nothing."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from uvicorn.protocols.http import httptools_impl

from serve.whole import write_whole

app = FastAPI()
asked_for = asyncio.Event()


@app.post("/whole")
async def whole(request: Request) -> dict[str, int]:
    return {"length": len(await request.body())}


@app.api_route("/empty", methods=["GET", "HEAD"])
def empty() -> Response:
    return Response(headers={"x-own": "1"})


@app.get("/pieces")
def pieces() -> StreamingResponse:
    async def two() -> Any:
        yield "first"
        await asked_for.wait()
        yield "last"

    return StreamingResponse(two())


@app.get("/last")
async def last() -> None:
    asked_for.set()


@app.get("/broken")
async def broken() -> StreamingResponse:
    async def none() -> Any:
        raise ValueError
        yield

    return StreamingResponse(none())


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    before = httptools_impl.RequestResponseCycle
    write_whole()
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        server = uvicorn.Server(uvicorn.Config(app, http="httptools", log_level="critical"))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        yield listening.getsockname()[1]
        server.should_exit = True
        thread.join()
    httptools_impl.RequestResponseCycle = before  # type: ignore[misc]


@pytest.fixture
def client(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), 10) as client:
        yield client


def words(method: str, path: str, *headers: str, body: str = "") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "host: me", *headers, "", body]).encode()


def test_head_and_body_are_one_write(client: socket.socket) -> None:
    """Apart, two of three come apart; on one connection, to see that each is written once."""
    for _ in range(50):
        client.sendall(words("POST", "/whole", "content-length: 3", body="abc"))
        assert client.recv(65536).endswith(b'\r\n\r\n{"length":3}')


def test_a_head_without_a_body_is_not_kept_back(client: socket.socket) -> None:
    for method in ("HEAD", "GET", "HEAD"):
        client.sendall(words(method, "/empty"))
        assert client.recv(65536).endswith(b"x-own: 1\r\ncontent-length: 0\r\n\r\n")


def test_an_answer_is_whole_where_the_connection_ends_with_it(client: socket.socket) -> None:
    client.sendall(words("HEAD", "/empty", "connection: close"))
    assert client.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
    assert client.recv(65536) == b""


def test_pieces_come_as_they_are_made(client: socket.socket, port: int) -> None:
    client.sendall(words("GET", "/pieces"))
    assert client.recv(65536).endswith(b"\r\n\r\n5\r\nfirst\r\n")
    with socket.create_connection(("127.0.0.1", port), 10) as other:
        other.sendall(words("GET", "/last"))
        assert other.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
    assert client.recv(65536).startswith(b"4\r\nlast\r\n")


def test_a_large_body_is_waited_for(client: socket.socket) -> None:
    """As curl sends it: the server says first that it may come."""
    client.sendall(words("POST", "/whole", "content-length: 5", "expect: 100-continue"))
    assert client.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.sendall(b"abcde")
    assert client.recv(65536).endswith(b'{"length":5}')


def test_an_answer_that_breaks_before_its_body_leaves_nothing_half(client: socket.socket) -> None:
    client.sendall(words("GET", "/broken"))
    assert client.recv(65536) == b""
