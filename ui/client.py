"""Asks the endpoints at one base URL over HTTP and returns typed answers.

It does not know who asks or how an answer is shown; whatever goes wrong is an `EndpointError` with a way out.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import unquote

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

from llmray.job.errors import JobError
from ui import trouble
from ui.calls import Call

T = TypeVar("T")
U = TypeVar("U")
CONNECT_TIMEOUT_S = 5.0
PROBE_TIMEOUT_S = 3.0
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Model:
    """Who answered; empty where the endpoint does not say."""

    name: str = ""
    version: str = ""


@dataclass(frozen=True)
class Reply(Generic[T]):
    value: T
    model: Model
    seconds: float
    call: Call

    def of(self, value: U) -> "Reply[U]":
        """The same reply, read as another value."""
        return Reply(value, self.model, self.seconds, self.call)


class About(BaseModel):
    """What an endpoint tells of its model."""

    task: str
    model: str
    version: str
    name: str | None = None
    """Its own below the route, where several models share one."""
    engine: str = ""
    """What runs it: `torch`, or a faster form."""
    metrics: dict[str, float] = {}
    created: str = ""
    """When it was registered, ISO 8601."""


class Span(BaseModel):
    """An answer and its place, in characters of the context."""

    answer: str
    score: float
    start: int
    end: int


class _Translation(BaseModel):
    translation_text: str


class _Written(BaseModel):
    generated_text: str


class _Token(BaseModel):
    text: str
    special: bool = False


class _Event(BaseModel):
    """One server-sent event of a stream: a piece of text, the end (`generated_text` is set), or an error."""

    token: _Token | None = None
    generated_text: str | None = None
    error: str | None = None


_SPANS: TypeAdapter[Span | list[Span]] = TypeAdapter(Span | list[Span])
_TRANSLATIONS = TypeAdapter(list[_Translation])
_WRITTEN = TypeAdapter(list[_Written])
_EVENT = TypeAdapter(_Event)
_ABOUT = TypeAdapter(About)
_SERVED = TypeAdapter(dict[str, str])


class Client:
    def __init__(self, base_url: str, key: str = "", timeout_s: float = 30.0) -> None:
        url = _address(base_url)
        self.base_url = base_url.rstrip("/")
        self.key = key
        self.timeout_s = timeout_s
        timeout = httpx.Timeout(timeout_s, connect=min(timeout_s, CONNECT_TIMEOUT_S))
        # A proxy of the environment is for the outside; it cannot reach this machine's loopback.
        trust_env = url.host not in LOOPBACK
        # No connection is kept, so that endpoints that restart never leave a dead one behind.
        self._http = httpx.Client(
            timeout=timeout, trust_env=trust_env, limits=httpx.Limits(max_keepalive_connections=0)
        )

    def keyed(self, key: str | None) -> "Client":
        """The same endpoints, asked with an API key; when empty, with this client's own."""
        other = copy(self)
        other.key = (key or "").strip() or self.key
        return other

    def close(self) -> None:
        self._http.close()

    def model(self, route: str) -> Model:
        """Who would answer at a route."""
        with self._sent(Call(f"{route}/healthz", b""), method="GET", timeout=PROBE_TIMEOUT_S) as response:
            return _model(response)

    def about(self, route: str) -> About:
        """What that model is, and what it scored."""
        with self._sent(Call(f"{route}/info", b""), method="GET", timeout=PROBE_TIMEOUT_S) as response:
            return self._parsed(_ABOUT, response.read(), response)

    def ask(self, question: str, context: str, top_k: int = 1) -> Reply[list[Span]]:
        """The likeliest answers within the context, best first."""
        inputs = {"question": question, "context": context}
        reply = self._answer(Call("/qa", {"inputs": inputs, "parameters": {"top_k": top_k}}), _SPANS)
        return reply.of(reply.value if isinstance(reply.value, list) else [reply.value])

    def routes(self) -> list[str]:
        """All that is served, further models of a task below its own route."""
        with self._sent(Call("/-/routes", b""), method="GET", timeout=PROBE_TIMEOUT_S) as response:
            return [*self._parsed(_SERVED, response.read(), response)]

    def names(self, route: str) -> list[str]:
        """The models that share a route, that of the route itself first; none where one stands alone."""
        others = [path.removeprefix(f"{route}/") for path in self.routes() if path.startswith(f"{route}/")]
        first = self.about(route).name if others else None
        return [*([first] if first else []), *others]

    def translate(self, text: str, name: str | None = None) -> Reply[str]:
        reply = self._answer(Call(f"/translate/{name}" if name else "/translate", {"inputs": text}), _TRANSLATIONS)
        return reply.of(reply.value[0].translation_text)

    def caption(self, picture: bytes) -> Reply[str]:
        reply = self._answer(Call("/caption", picture), _WRITTEN)
        return reply.of(reply.value[0].generated_text)

    def write(self, prompt: str, max_new_tokens: int, temperature: float, top_p: float = 1.0) -> Iterator[Reply[str]]:
        """Go on from a prompt: the text so far, each time it grows; the most likely text at temperature 0."""
        sampling: dict[str, Any] = {"do_sample": temperature > 0}
        if temperature > 0:
            sampling |= {"temperature": temperature} | ({"top_p": top_p} if top_p < 1 else {})
        parameters = {"max_new_tokens": max_new_tokens, "return_full_text": False, **sampling}
        call = Call("/generate", {"inputs": prompt, "parameters": parameters, "stream": True})
        began, text = time.monotonic(), ""
        with self._sent(call) as response:
            for event in self._events(response):
                if event.error is not None:
                    raise trouble.failed_midway(event.error)
                if event.token and not event.token.special:
                    text += event.token.text
                yield Reply(text, _model(response), time.monotonic() - began, call)
                if event.generated_text is not None:
                    return
        raise trouble.cut_off(f"{self.base_url}/generate")

    def _events(self, response: httpx.Response) -> Iterator[_Event]:
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            raise trouble.garbled(str(response.request.url))
        for line in response.iter_lines():
            if line.startswith("data:"):
                yield self._parsed(_EVENT, line[5:].encode(), response)

    def _answer(self, call: Call, shape: TypeAdapter[T]) -> Reply[T]:
        began = time.monotonic()
        with self._sent(call) as response:
            value = self._parsed(shape, response.read(), response)
            if value == []:
                raise trouble.garbled(str(response.request.url))
            return Reply(value, _model(response), time.monotonic() - began, call)

    def _parsed(self, shape: TypeAdapter[T], content: bytes, response: httpx.Response) -> T:
        try:
            return shape.validate_json(content)
        except ValidationError:
            raise trouble.garbled(str(response.request.url)) from None

    def _headers(self, is_picture: bool) -> dict[bytes, bytes]:
        kind = b"application/octet-stream" if is_picture else b"application/json"
        return {b"content-type": kind} | ({b"authorization": f"Bearer {self.key}".encode()} if self.key else {})

    @contextmanager
    def _sent(self, call: Call, *, method: str = "POST", timeout: float | None = None) -> Iterator[httpx.Response]:
        """An answer that is 2xx, its body still to be read; everything else is raised as trouble."""
        url, body = self.base_url + call.route, call.body
        request = self._http.build_request(
            method,
            url,
            # Escaped to ASCII, so that even half a surrogate pair reaches the endpoint, which says what is wrong.
            content=body if isinstance(body, bytes) else json.dumps(body).encode(),
            headers=self._headers(isinstance(body, bytes)),
            timeout=timeout if timeout is not None else httpx.USE_CLIENT_DEFAULT,
        )
        response = None
        try:
            response = self._http.send(request, stream=True)
            if not response.is_success:
                response.read()
                raise trouble.refused(response, bool(self.key))
            yield response
        except (httpx.ConnectError, httpx.ConnectTimeout):
            raise trouble.unreachable(self.base_url) from None
        except httpx.TimeoutException:
            raise trouble.late(url, timeout or self.timeout_s) from None
        except (httpx.TransportError, httpx.DecodingError):
            raise trouble.cut_off(url) from None
        finally:
            if response is not None:
                response.close()


def _model(response: httpx.Response) -> Model:
    return Model(*(unquote(response.headers.get(f"x-llmray-{what}", "")) for what in ("model", "version")))


def _address(base_url: str) -> httpx.URL:
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL:
        url = httpx.URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise JobError(f"url: {base_url!r} is no address of endpoints; write it like http://127.0.0.1:8000")
    return url
