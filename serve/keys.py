"""API keys: a file that holds their hashes, and the guard that asks every request for one.

It does not know what the routes behind it do.  A key is 256 random bits, so a plain hash cannot be turned round.
"""

import asyncio
import hashlib
import hmac
import math
import secrets
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

from fastapi.responses import JSONResponse
from filelock import FileLock
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from llmray.job.errors import LlmrayError, RequestError, StoreError
from llmray.job.results import ApiKey, NewApiKey
from llmray.store import place
from serve.web import Failure, refusal

PREFIX = "llmray-"
CALLER = "llmray.caller"
"""Where the guard writes, in a request's scope, the id of the key that it brought."""
OPEN = "/healthz"
"""The one route, below each prefix, that needs no key."""
READ_EVERY_S = 1.0
"""How old what a replica knows of the file may be: a revoked key is refused after this time."""


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True)

    sha256: str
    about: ApiKey


class _File(BaseModel):
    keys: tuple[_Entry, ...] = ()


class Keys:
    """The keys of one file, as new as `READ_EVERY_S`."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.read_at = -math.inf
        self.valid: dict[str, str] = {}
        """Hash → id."""
        self.refresh()

    def refresh(self) -> None:
        """Raises `StoreError` where the file is gone or cannot be read: then no key is known to be valid."""
        self.read_at = monotonic()
        try:
            entries = _read(self.path).keys
            self.valid = {entry.sha256: entry.about.id for entry in entries if entry.about.revoked is None}
        except StoreError:
            self.valid, self.read_at = {}, -math.inf
            raise

    async def owner(self, key: str) -> str | None:
        """Id of a valid key."""
        if monotonic() - self.read_at > READ_EVERY_S:
            await asyncio.to_thread(self.refresh)
        found = _hashed(key)
        owners = [identity for each, identity in self.valid.items() if hmac.compare_digest(found, each)]
        return owners[0] if owners else None


class Guard:
    """Lets requests pass that bring a valid key (`Authorization: Bearer KEY`), and questions after health."""

    def __init__(self, app: ASGIApp, keys: Keys, failure: Failure) -> None:
        self.app, self.keys, self.failure = app, keys, failure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].removeprefix(scope.get("root_path", "")) == OPEN:
            return await self.app(scope, receive, send)
        kind, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
        try:
            caller = await self.keys.owner(key.strip()) if kind.lower() == "bearer" else None
        except LlmrayError as error:
            return await refusal(RequestError(str(error), 503), self.failure)(scope, receive, send)
        if caller is not None:
            return await self.app({**scope, CALLER: caller}, receive, send)
        said = "This API key is not valid here" if key else "An API key is needed: Authorization: Bearer KEY"
        told = self.failure(f"{said}; whoever runs the server makes one with `llmray keys create`", 401)
        return await JSONResponse(told, 401, {"www-authenticate": "Bearer"})(scope, receive, send)


def create(path: str, name: str) -> NewApiKey:
    """A new key, told this once."""
    secret = PREFIX + secrets.token_urlsafe(32)
    about = ApiKey(id=secrets.token_hex(4), name=name, created=_now())
    with _alone(path):
        _write(path, (*_kept(path), _Entry(sha256=_hashed(secret), about=about)))
    return NewApiKey(id=about.id, name=name, key=secret)


def listed(path: str) -> tuple[ApiKey, ...]:
    return tuple(entry.about for entry in _kept(path))


def revoke(path: str, identity: str) -> ApiKey:
    """Make a key worthless; its entry stays, so that a file of revoked keys never opens the endpoints."""
    with _alone(path):
        keys = {entry.about.id: entry for entry in _kept(path)}
        if identity not in keys:
            raise StoreError(f"{path}: holds no key {identity!r}; `llmray keys list` tells their ids")
        entry = keys[identity]
        if entry.about.revoked is None:
            entry = entry.model_copy(update={"about": entry.about.model_copy(update={"revoked": _now()})})
            _write(path, tuple((keys | {identity: entry}).values()))
    return entry.about


def _kept(path: str) -> tuple[_Entry, ...]:
    """The entries of a file that may not be there yet."""
    return _read(path).keys if place.exists(path) else ()


def _read(path: str) -> _File:
    try:
        return _File.model_validate_json(place.read_text(path))
    except OSError as error:
        raise StoreError(
            f"{path}: the file of API keys cannot be read ({error}); every machine that serves must reach it"
        ) from error
    except ValidationError as error:
        raise StoreError(f"{path}: is no file of API keys, or damaged ({error.error_count()} errors)") from error


def _write(path: str, keys: tuple[_Entry, ...]) -> None:
    place.write_text(path, _File(keys=keys).model_dump_json(indent=2))


def _alone(path: str) -> AbstractContextManager[object]:
    """Two who create keys at once must not lose one; an object store has no locks."""
    if not place.is_local(path):
        return nullcontext()
    local = Path(path.removeprefix("file://"))
    local.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{local}.lock")


def _hashed(key: str) -> str:
    return hashlib.sha256(key.encode(errors="replace")).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
