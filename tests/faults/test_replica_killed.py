"""Replicas die under load, and nobody who asks notices."""

import asyncio
import os
import signal
from collections import Counter
from typing import Any

import httpx
import psutil
import pytest
import ray

from llmray.job.schema import Serve
from llmray.store.journal import Progress
from serve.deploy import deploy, shutdown
from serve.environment import free_block

CLIENTS, PAUSE_S = 8, 0.02
"""Without a pause they would take the time in which a new replica starts."""
KILLS, EVERY_S, REQUESTS = 12, 5.0, 10_000
BODY = {"inputs": "A red circle is above a blue square."}


def replicas() -> list[int]:
    """Process ids of the replicas that run; those that died lately are still among what Ray Serve tells."""
    controller = ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
    app = ray.get(controller.get_serve_instance_details.remote())["applications"]["classification"]
    [deployment] = app["deployments"].values()
    running = [replica["pid"] for replica in deployment["replicas"] if replica["state"] == "RUNNING"]
    return [pid for pid in running if psutil.pid_exists(pid)]


async def ask(url: str, ended: asyncio.Event, found: Counter[str]) -> None:
    """Tell what one client got, until the end."""
    async with httpx.AsyncClient(timeout=60) as http:
        while not ended.is_set():
            try:
                answer = await http.post(url, json=BODY)
                found[f"{answer.status_code} {answer.json()[0][0]['label'] if answer.is_success else answer.text}"] += 1
            except httpx.HTTPError as error:
                found[repr(error)] += 1
            await asyncio.sleep(PAUSE_S)


async def kill_and_ask(url: str) -> tuple[int, Counter[str]]:
    """For a minute and until there were `REQUESTS`: how many replicas were killed, and all answers."""
    ended, found, killed = asyncio.Event(), Counter[str](), 0
    clients = [asyncio.create_task(ask(url, ended, found)) for _ in range(CLIENTS)]
    while killed < KILLS or found.total() < REQUESTS:
        await asyncio.sleep(EVERY_S)
        while len(alive := await asyncio.to_thread(replicas)) < 2:  # what the last copy had in hand may be lost
            await asyncio.sleep(0.1)
        os.kill(alive[0], signal.SIGKILL)
        killed += 1
    await asyncio.sleep(EVERY_S)
    ended.set()
    await asyncio.gather(*clients)
    return killed, found


@pytest.mark.slow
def test_no_request_is_lost_while_replicas_are_killed(ray_cluster: None, models: dict[str, str]) -> None:
    end: dict[str, Any] = {"task": "classification", "model": models["classification"], "cpus": 0.1}
    end |= {"min_replicas": 3, "max_replicas": 3}
    live = deploy(Serve.model_validate({"port": free_block()[0], "endpoints": [end]}), None, Progress.silent())
    try:
        killed, found = asyncio.run(kill_and_ask(f"{live.url}/classify"))
    finally:
        shutdown()
    print(f"{killed} replicas killed", found)
    assert len(found) == 1, found
    assert next(iter(found)).startswith("200 "), found
