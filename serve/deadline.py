"""A time by which an answer must have begun; a request that is still waiting then is given up, and never run.

It does not know what a request waits for.
"""

import asyncio
import math

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llmray.job.errors import RequestError
from serve.web import RETRY_AFTER_S, Failure, refusal

WITHIN = "llmray.within_s"
"""Where a request's scope tells the seconds in which its answer must begin."""
HEADER = "x-llmray-deadline"
"""Seconds that a client is ready to wait; it can only shorten what the job file allows."""


class Deadline:
    """Cancels a request whose answer has not begun in time; one that has may take as long as it takes."""

    def __init__(self, app: ASGIApp, seconds: float, failure: Failure) -> None:
        self.app, self.seconds, self.failure = app, seconds, failure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        try:
            seconds = min(self.seconds, _asked(Headers(scope=scope).get(HEADER)))
        except RequestError as error:
            return await refusal(error, self.failure)(scope, receive, send)

        async def send_in_time(message: Message) -> None:
            timeout.reschedule(None)
            await send(message)

        try:
            async with asyncio.timeout(seconds) as timeout:
                await self.app({**scope, WITHIN: seconds}, receive, send_in_time)
        except TimeoutError:
            if not timeout.expired():
                raise
            late = RequestError(f"no answer began within {seconds:g} s, and none will; try again soon", 503)
            await refusal(late, self.failure, RETRY_AFTER_S)(scope, receive, send)


def _asked(value: str | None) -> float:
    if value is None:
        return math.inf
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise RequestError(f"{HEADER} must be a number of seconds above 0")
    return seconds
