"""Clients of an endpoint, in closed loop and in open loop.  It does not know what is asked, nor of whom."""

import asyncio
import itertools
import random
import statistics
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple

import aiohttp


class Asked(NamedTuple):
    """One request: its status, or what went wrong; seconds from when it was due to its end; when that was."""

    status: str
    took_s: float
    ended: float


def closed(url: str, bodies: Sequence[bytes], clients: int, seconds: float, key: str = "") -> list[Asked]:
    """`clients` that each ask again once they are answered, and once at least."""
    found: list[Asked] = []
    turn, end = itertools.cycle(bodies), time.monotonic() + seconds

    async def client(http: aiohttp.ClientSession) -> None:
        while True:
            found.append(await _ask(http, url, next(turn), time.monotonic()))
            if time.monotonic() > end:
                return

    asyncio.run(_together(key, lambda http: [client(http) for _ in range(clients)]))
    return found


def opened(url: str, bodies: Sequence[bytes], rate: float, seconds: float, key: str = "") -> list[Asked]:
    """At random times, `rate` a second on average, whether answered or not; what waits to be sent counts as waiting."""
    draw, at, plan = random.Random(0), 0.0, list[float]()
    while (at := at + draw.expovariate(rate)) < seconds:
        plan.append(at)
    began = time.monotonic()

    async def one(http: aiohttp.ClientSession, due: float, body: bytes) -> Asked:
        await asyncio.sleep(due - time.monotonic())
        return await _ask(http, url, body, due)

    sent = [*zip(plan, itertools.cycle(bodies), strict=False)]
    return asyncio.run(_together(key, lambda http: [one(http, began + at, body) for at, body in sent]))


async def _together(key: str, asks: Callable[[aiohttp.ClientSession], list[Coroutine[Any, Any, Any]]]) -> list[Any]:
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=headers) as http:
        return await asyncio.gather(*asks(http))


async def _ask(http: aiohttp.ClientSession, url: str, body: bytes, due: float) -> Asked:
    try:
        async with http.post(url, data=body) as answer:
            await answer.read()
            said = str(answer.status)
    except (aiohttp.ClientError, TimeoutError) as error:
        said = type(error).__name__
    now = time.monotonic()
    return Asked(said, now - due, now)


def per_second(found: Sequence[Asked]) -> float:
    """From the first request on to the end of the last one."""
    return len(found) / (max(one.ended for one in found) - min(one.ended - one.took_s for one in found))


def ms(found: Sequence[Asked], percent: int) -> float:
    """A percentile of the milliseconds that requests took."""
    took = [1000 * one.took_s for one in found]
    return statistics.quantiles(took, n=100, method="inclusive")[percent - 1] if len(took) > 1 else took[0]
