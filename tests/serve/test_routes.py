"""One task's web application: statuses, headers, streams; a small function stands where the model would."""

import asyncio
import base64
import json
import threading
from collections.abc import Sequence

import pytest
from PIL import ImageFile
from starlette.testclient import TestClient

from llmray.job.errors import RequestError
from llmray.model.generate import Stream
from llmray.tasks.base import Request
from serve import limits, routes
from serve.batcher import Batcher, Outcome
from serve.shapes import SHED, Identity

ONE_PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
)


def answer(request: Request) -> Outcome:
    text = str(request.inputs.get("text", ""))
    if unknown := [name for name in request.parameters if name != "top_k"]:
        return RequestError(f"unknown parameter {unknown[0]!r}")
    if text == "explode":
        raise ZeroDivisionError("boom")
    span = {"answer": "red", "score": 0.9, "start": 2, "end": 5}
    return {
        "candidates": [span] * request.parameters.get("top_k", 1),
        "translation_text": text.upper(),
        "generated_text": text,
        "finish_reason": "length",
        "prompt_tokens": 1,
        "tokens": 2,
    }


def predict(requests: Sequence[Request]) -> list[Outcome]:
    return [answer(request) for request in requests]


def pieces(request: Request) -> Stream:
    if request.parameters:
        raise RequestError("unknown parameter 'beams'")
    yield "red "
    yield "circle"
    if request.inputs["text"] == "explode":
        raise ZeroDivisionError("boom")
    return {"finish_reason": "length", "prompt_tokens": 1, "tokens": 2}


def client(task: str, root_path: str = "", max_queued: int = 256) -> TestClient:
    batcher = Batcher(predict, pieces, max_batch_size=4, wait_s=0.01, max_queued=max_queued)
    app = routes.build(task, Identity("tiny", "3", "torch", "abc"), batcher)
    return TestClient(app, root_path=root_path, raise_server_exceptions=False, base_url=f"http://test{root_path}")


def test_a_model_tells_what_is_known_of_it() -> None:
    batcher = Batcher(predict, pieces, max_batch_size=1, wait_s=0, max_queued=1)
    app = routes.build("qa", Identity("tiny", "3", "torch", "abc"), batcher, about={"metrics": {"f1": 50.0}})
    found = TestClient(app).get("/info").json()
    known = {"model": "tiny", "version": "3", "engine": "torch", "lineage": "abc", "name": None}
    assert found == {"task": "qa", **known, "metrics": {"f1": 50.0}}


@pytest.mark.parametrize(("deadline_s", "sent", "shed"), [(0.2, {}, "75"), (60, {"x-llmray-deadline": "0.2"}, None)])
def test_a_replica_tells_haproxy_when_it_is_late_for_all_but_not_when_for_one(
    deadline_s: float, sent: dict[str, str], shed: str | None
) -> None:
    batcher = Batcher(predict, pieces, max_batch_size=1, wait_s=0, max_queued=9, deadline_s=deadline_s)
    batcher.took_s, batcher.longest_s = 0.15, 0.2
    batcher.queue.append((Request({}, {}), asyncio.new_event_loop().create_future(), 0.0))
    app = routes.build("qa", Identity("tiny", "3", "torch", "abc"), batcher)
    found = TestClient(app).post("/", content=b"{", headers=sent)
    assert (found.status_code, found.headers.get(SHED)) == (503, shed)
    assert "an answer would take 0.5 s, not 0.2" in found.json()["error"]


def test_where_there_is_no_room_a_request_is_not_even_read() -> None:
    batcher = Batcher(predict, pieces, max_batch_size=1, wait_s=0, max_queued=1)
    batcher.streams_waiting = 1
    found = TestClient(routes.build("qa", Identity("tiny", "3", "torch", "abc"), batcher)).post("/", content=b"{")
    assert (found.status_code, found.headers["retry-after"]) == (503, "1")
    assert found.json()["error"] == "1 requests are waiting; try again soon"


def test_even_a_small_picture_is_unpacked_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads, load = list[str](), ImageFile.ImageFile.load

    def noted(picture: ImageFile.ImageFile) -> object:
        threads.append(threading.current_thread().name)
        return load(picture)

    monkeypatch.setattr(ImageFile.ImageFile, "load", noted)
    assert client("captioning").post("/", content=ONE_PIXEL, headers={"content-type": "image/png"}).status_code == 200
    assert threads
    assert all(name.startswith("asyncio_") for name in threads)


@pytest.mark.parametrize("path", ["/qa", "/qa/"])
def test_a_question_is_answered_with_and_without_the_closing_slash(path: str) -> None:
    with TestClient(client("qa").app, root_path="/qa") as http:
        found = http.post(path, json={"inputs": {"question": "What?", "context": "A red circle"}})
    assert found.json() == {"answer": "red", "score": 0.9, "start": 2, "end": 5}
    assert (found.headers["x-llmray-model"], found.headers["x-llmray-lineage"]) == ("tiny", "abc")
    assert found.headers["x-llmray-version"] == "3"


@pytest.mark.parametrize(
    ("task", "content", "content_type", "status"),
    [
        ("qa", b"{", "application/json", 400),
        ("qa", b'{"inputs": 1}', "application/json", 422),
        ("qa", b'{"inputs": {"question": "a", "context": "b"}, "parameters": {"x": 1}}', "application/json", 422),
        ("qa", b"x" * (limits.MAX_TEXT_BODY_BYTES + 1), "application/json", 413),
        ("captioning", b"hello", "image/png", 415),
        ("captioning", b"x" * (limits.MAX_PICTURE_BODY_BYTES + 1), "image/png", 413),
        ("captioning", ONE_PIXEL, "image/png", 200),
        ("translation", b'{"inputs": ["a", "b"]}', "application/json", 200),
        ("translation", b'{"inputs": "explode"}', "application/json", 500),
    ],
)
def test_every_status_comes_as_json_and_names_the_model(
    task: str, content: bytes, content_type: str, status: int
) -> None:
    with client(task) as http:
        found = http.post("/", content=content, headers={"content-type": content_type})
    assert found.status_code == status
    assert found.headers["x-llmray-version"] == "3"
    assert status == 200 or set(found.json()) == {"error", "error_type"}


def test_a_name_that_no_header_can_hold_is_percent_encoded() -> None:
    named = Identity("翻訳 100%\n", "3", "onnx int8", "abc").headers()
    assert named["x-llmray-model"] == "%E7%BF%BB%E8%A8%B3 100%25%0A"
    assert named["x-llmray-engine"] == "onnx int8"
    assert all(value.isascii() for value in named.values())


def test_unknown_paths_and_methods_are_answered_in_json() -> None:
    with client("qa") as http:
        assert "does not exist" in http.get("/nothing").json()["error"]
        wrong = http.get("/")
    assert wrong.status_code == 405
    assert "GET is not possible at /" in wrong.json()["error"]


def test_health_and_documentation_live_under_the_prefix() -> None:
    with TestClient(client("qa").app, root_path="/qa") as http:
        assert http.get("/qa/healthz").json()["model"] == "tiny"
        assert "/qa/openapi.json" in http.get("/qa/docs").text
        described = http.get("/qa/openapi.json").json()
    assert described["servers"] == [{"url": "/qa"}]
    assert "question" in json.dumps(described["paths"]["/"]["post"]["requestBody"])


def test_a_stream_ends_with_the_whole_text() -> None:
    with client("causal_lm") as http:
        found = http.post("/", json={"inputs": "a", "stream": True})
    assert found.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(line[5:]) for line in found.text.splitlines() if line]
    assert [event["token"]["text"] for event in events] == ["red ", "circle", ""]
    assert [event["generated_text"] for event in events] == [None, None, "red circle"]


def test_a_stream_tells_details_where_they_are_asked_for() -> None:
    with client("causal_lm") as http:
        found = http.post("/", json={"inputs": "a", "stream": True, "parameters": {"details": True}})
    last = json.loads(found.text.splitlines()[-2][5:])["details"]
    assert (last["finish_reason"], last["generated_tokens"], last["input_length"]) == ("length", 2, 1)


def test_a_bad_request_for_a_stream_gets_its_status() -> None:
    with client("causal_lm") as http:
        found = http.post("/", json={"inputs": "a", "stream": True, "parameters": {"beams": 1}})
    assert (found.status_code, found.json()["error"]) == (422, "unknown parameter 'beams'")


def test_a_stream_that_breaks_says_so_in_its_last_event() -> None:
    with client("causal_lm") as http:
        found = http.post("/", json={"inputs": "explode", "stream": True})
    last = json.loads(found.text.splitlines()[-2][5:])
    assert last["error_type"] == "generation"
    assert "boom" in last["error"]


def test_a_full_queue_is_refused_with_a_time_to_come_back() -> None:
    busy, release = threading.Event(), threading.Event()

    def slow(requests: Sequence[Request]) -> list[Outcome]:
        busy.set()
        release.wait(10)
        return predict(requests)

    batcher = Batcher(slow, pieces, max_batch_size=1, wait_s=0, max_queued=1)
    with TestClient(routes.build("translation", Identity("tiny", "3", "torch", "abc"), batcher)) as http:
        threads = [threading.Thread(target=http.post, args=("/",), kwargs={"json": {"inputs": "a"}}) for _ in range(2)]
        threads[0].start()
        assert busy.wait(10)
        threads[1].start()
        while not batcher.queue:
            pass
        found = http.post("/", json={"inputs": "a"})
        release.set()
        for thread in threads:
            thread.join()
    assert found.status_code == 503
    assert (found.headers["retry-after"], found.headers[SHED]) == ("1", "0")
    assert found.json()["error_type"] == "overloaded"
