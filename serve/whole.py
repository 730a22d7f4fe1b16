"""The head of an answer and the first of its body leave in one write.

uvicorn writes them one after the other, and a replica that dies in between leaves a head without its body, for which a
proxy cannot ask another replica any more.  It does not know what is answered.
"""

from typing import Any

from uvicorn.protocols.http import httptools_impl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


def write_whole() -> None:
    """To be called in a replica before it is asked: in its constructor."""
    httptools_impl.RequestResponseCycle = Cycle  # type: ignore[assignment, misc]


class Cycle(RequestResponseCycle):
    """One request and its answer."""

    def __init__(self, scope: Any, transport: Any, **given: Any) -> None:
        super().__init__(scope, Held(transport), **given)  # type: ignore[arg-type]

    async def send(self, message: Any) -> None:
        held: Any = self.transport
        if message["type"] == "http.response.start":
            held.hold()
        elif self.scope["method"] == "HEAD":
            held.release()  # no body will follow
        await super().send(message)


class Held:
    """A transport that keeps back what is written next, until something follows it."""

    def __init__(self, transport: Any) -> None:
        self.transport = transport
        self.first: bytes | None = None
        """What is kept back, empty before it has come."""

    def hold(self) -> None:
        self.first = b""

    def release(self) -> None:
        if self.first:
            self.transport.write(self.first)
        self.first = None

    def write(self, data: bytes) -> None:
        if self.first == b"":
            self.first = data
        else:
            self.transport.write((self.first or b"") + data)
            self.first = None

    def close(self) -> None:
        self.transport.close()

    def is_closing(self) -> bool:
        return bool(self.transport.is_closing())
