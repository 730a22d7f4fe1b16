"""Where each task is served, and what errors and events look like.

It does not know requests or answers (`wire` and `openai` do).
"""

import json
import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import quote

ROUTES: dict[str, str] = {
    "qa": "/qa",
    "translation": "/translate",
    "captioning": "/caption",
    "causal_lm": "/generate",
    "masked_lm": "/fill-mask",
    "classification": "/classify",
    "chat": "/chat",
}
"""Task → route prefix."""
PREFIXES = ROUTES | {"openai": "/v1"}
"""Serve application → route prefix: one a task, and the one that answers as OpenAI does."""
OWN_PATHS = ("docs", "healthz", "info")
"""Below each prefix; no model can be named so."""
GENERATING = ("causal_lm", "chat")
"""Tasks that `/v1` leads to."""
EVENT_STREAM = {"content-type": "text/event-stream", "cache-control": "no-cache", "x-accel-buffering": "no"}
PRINTABLE = string.punctuation.replace("%", "") + " "
SHED = "x-llmray-shed-ms"
"""Header of a refusal, for HAProxy alone: so long it is to refuse by itself what else comes to that endpoint."""
SHED_MOST_MS = 100
"""Short, because other replicas may have room."""
KINDS = dict.fromkeys((400, 413, 415, 422), "validation") | dict.fromkeys((429, 503), "overloaded")
LONGEST_MESSAGE = 1000
"""Characters of an error: it may quote what was sent."""


@dataclass(frozen=True)
class Identity:
    """Which model answers."""

    name: str
    version: str
    engine: str
    lineage: str

    def headers(self) -> dict[str, str]:
        """What is not printable ASCII is percent-encoded (RFC 3986): a header holds no more."""
        named = {"model": self.name, "version": self.version, "engine": self.engine, "lineage": self.lineage}
        return {f"x-llmray-{what}": quote(each, safe=PRINTABLE) for what, each in named.items()}


Part: TypeAlias = tuple[int, dict[str, str], Identity] | bytes
"""Of an answer on its way between processes: first status, headers and whose it is, then pieces of the body."""


def failure(message: str, status: int) -> dict[str, str]:
    """Body of an error; `error_type` is what text-generation-inference calls its kind, where it has a name for it."""
    kind = KINDS.get(status, "generation" if status >= 500 else None)
    return {"error": _sendable(message)} | ({"error_type": kind} if kind else {})


def openai_failure(message: str, status: int) -> dict[str, Any]:
    """Body of an error as OpenAI's clients read it."""
    kind = "requests" if status == 429 else "invalid_request_error" if status < 500 else "server_error"
    code = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded"}.get(status)
    return {"error": {"message": _sendable(message), "type": kind, "param": None, "code": code}}


def _sendable(message: str) -> str:
    told = message if len(message) <= LONGEST_MESSAGE else message[:LONGEST_MESSAGE] + " …"
    return told.encode(errors="replace").decode()


def compact(value: Mapping[str, Any]) -> str:
    """One line of JSON."""
    return json.dumps(value, ensure_ascii=False)


def sse(value: Mapping[str, Any]) -> str:
    """A server-sent event."""
    return f"data: {compact(value)}\n\n"
