"""Clients of an endpoint, in closed loop and in open loop.  It does not know what is asked, nor of whom."""

import asyncio
import itertools
import json
import random
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple

import aiohttp


class Asked(NamedTuple):
    """One request: its status, or what went wrong; seconds from when it was due to its end; when that was."""

    status: str
    took_s: float
    ended: float


WRK = """
wrk.method, wrk.body = "POST", [==[{body}]==]
wrk.headers["Content-Type"], wrk.headers["Authorization"] = "application/json", "Bearer {key}"
done = function(summary, latency, requests)
  local wrong = summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.timeout
  io.write(string.format('\\n{{"count": %d, "seconds": %f, "wrong": %d, "p50": %f, "p99": %f}}\\n', summary.requests,
    summary.duration / 1e6, wrong, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
"""


class Figures(NamedTuple):
    """Of one load: requests a second, and milliseconds."""

    rate: float
    p50: float
    p99: float


def wrk(url: str, body: bytes, clients: int, seconds: float, key: str = "") -> Figures:
    """`closed`, by a program in C, which takes little of the processor from a server that answers in no time."""
    if not shutil.which("wrk"):
        raise SystemExit("this needs wrk (Debian: apt install wrk)")
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(WRK.format(body=body.decode(), key=key))
        script.flush()
        words = ["wrk", "-t1", f"-c{clients}", f"-d{round(seconds)}s", "-s", script.name, url]
        said = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    told = json.loads(said.splitlines()[-1])
    if told["wrong"]:
        raise SystemExit(f"{url}: {told['wrong']} requests of {told['count']} were not answered")
    return Figures(told["count"] / told["seconds"], told["p50"], told["p99"])


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
