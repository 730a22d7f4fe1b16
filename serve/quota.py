"""How often one caller may ask, and how many requests it may have under way; more are refused with 429.

It does not know who may ask (`keys` does), nor what is asked.
"""

import math
import time
from collections import Counter
from typing import Any

from limits import RateLimitItemPerMinute
from limits.aio.strategies import MovingWindowRateLimiter
from limits.errors import StorageError
from limits.storage import storage_from_string
from starlette.types import ASGIApp, Receive, Scope, Send

from llmray.job.errors import RequestError
from llmray.job.schema import Limits
from serve.keys import CALLER
from serve.web import Failure, refusal

ANYONE = "anyone"
"""Without keys only this machine can ask, as one caller."""
STORAGE_ANSWERS_WITHIN_S = 2
AGAIN_S = 1
"""When a caller with too much under way may try again."""


class Quota:
    """Counts what asks a model (`POST`); health, documentation and lists are free."""

    def __init__(self, app: ASGIApp, limits: Limits, route: str, failure: Failure) -> None:
        self.app, self.limits, self.route, self.failure = app, limits, route, failure
        self.under_way: Counter[str] = Counter()
        if limits.requests_per_minute is not None:
            self.rate = RateLimitItemPerMinute(limits.requests_per_minute, namespace="llmray")
            self.limiter = MovingWindowRateLimiter(_storage(limits.storage))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            return await self.app(scope, receive, send)
        caller = scope.get(CALLER, ANYONE)
        if refused := self._too_many(caller) or await self._too_often(caller):
            error, again_s = refused
            return await refusal(error, self.failure, again_s)(scope, receive, send)
        self.under_way[caller] += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.under_way[caller] -= 1

    def _too_many(self, caller: str) -> tuple[RequestError, int] | None:
        most = self.limits.concurrent
        if most is None or self.under_way[caller] < most:
            return None
        return RequestError(f"{most} of your requests are under way; wait for one of them", 429), AGAIN_S

    async def _too_often(self, caller: str) -> tuple[RequestError, int] | None:
        if self.limits.requests_per_minute is None:
            return None
        try:
            if await self.limiter.hit(self.rate, self.route, caller):
                return None
            free_at = (await self.limiter.get_window_stats(self.rate, self.route, caller)).reset_time
        except StorageError as error:
            return RequestError(f"Requests cannot be counted now: {type(error.storage_error).__name__}", 503), AGAIN_S
        again_s = max(1, math.ceil(free_at - time.time()))
        said = f"more than {self.rate.amount} requests in a minute; the next may come in {again_s} s"
        return RequestError(said, 429), again_s


def _storage(name: str) -> Any:
    if name == "memory":
        return storage_from_string("async+memory://")
    patience = {"socket_timeout": STORAGE_ANSWERS_WITHIN_S, "socket_connect_timeout": STORAGE_ANSWERS_WITHIN_S}
    return storage_from_string(f"async+{name}", implementation="redispy", wrap_exceptions=True, **patience)
