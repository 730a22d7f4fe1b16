"""Every route on a real cluster behind HAProxy, asked by the clients that users have."""

import io
import json
import re
import shutil
import socket
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import ray
import torch
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError, ValidationError
from PIL import Image
from playwright.sync_api import Browser, expect

from llmray.job.errors import ClusterError
from llmray.job.results import EndpointStatus, ServeResult
from llmray.job.schema import Endpoint, Job, Serve
from llmray.model import registry
from llmray.model.load import build, processor, save
from llmray.model.predict import Predictor
from llmray.store.journal import Progress
from llmray.tasks import make
from llmray.tasks.base import Request
from llmray.verbs import export
from serve import keys
from serve.deploy import deploy, shutdown, status
from serve.environment import free_block
from serve.shapes import PREFIXES, ROUTES
from ui.app import launch
from ui.client import Client

CONTEXT = "A red circle is above a blue square."
SAID = [{"role": "user", "content": "What is red?"}]
FEW = {"max_new_tokens": 8}
MOST_TOKENS = 4000
"""Of one stream."""


def picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 48), "red").save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def live(ray_cluster: None, models: dict[str, str]) -> Iterator[ServeResult]:
    ends = [{"task": task, "model": model, "cpus": 0.1, "max_queued": 64} for task, model in models.items()]
    yield deploy(Serve.model_validate({"port": free_block()[0], "endpoints": ends}), None, Progress.silent())
    shutdown()


def client(live: ServeResult, route: str) -> InferenceClient:
    return InferenceClient(model=live.url + route)


def openai_client(live: ServeResult, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{live.url}/v1", api_key=key, max_retries=0)


def texts(name: str) -> Callable[[Any], Any]:
    return lambda answers: [{name: answer[name]} for answer in answers]


PREDICTED: dict[str, tuple[Any, list[dict[str, Any]], dict[str, Any], Callable[[Any], Any]]] = {
    "qa": (
        {"question": "What is red?", "context": CONTEXT},
        [{"question": "What is red?", "context": CONTEXT}],
        {"top_k": 3},
        lambda answers: answers[0]["candidates"],
    ),
    "translation": (
        ["a red circle", "a blue square"],
        [{"text": "a red circle"}, {"text": "a blue square"}],
        FEW | {"num_beams": 1},
        texts("translation_text"),
    ),
    "captioning": (
        b64encode(picture()).decode(),
        [{"image": picture()}],
        FEW | {"num_beams": 1},
        texts("generated_text"),
    ),
    "classification": (
        ["A red circle.", "blue"],
        [{"text": "A red circle."}, {"text": "blue"}],
        {},
        lambda answers: [answer["candidates"] for answer in answers],
    ),
    "masked_lm": (
        "A red <mask>.",
        [{"text": "A red <mask>."}],
        {"top_k": 3},
        lambda answers: answers[0]["candidates"],
    ),
    "causal_lm": ("A red", [{"text": "A red"}], FEW, texts("generated_text")),
    "chat": (SAID, [{"messages": SAID}], FEW, texts("generated_text")),
}
"""Task → `inputs` of a body, the requests that it means, parameters, and the answers in the route's shape."""


@pytest.mark.parametrize("task", ROUTES)
def test_a_route_answers_what_the_predictor_does(
    live: ServeResult, models: dict[str, str], task: str, alike: Any
) -> None:
    inputs, meant, parameters, shape = PREDICTED[task]
    predictor = Predictor.load(models[task], device="cpu")
    expected = shape(predictor.predict([Request(each, parameters) for each in meant]))
    found = httpx.post(live.url + ROUTES[task], json={"inputs": inputs, "parameters": parameters}, timeout=60)
    assert alike(found.json(), expected), (found.text, expected)


def test_a_question_has_its_answer_in_the_context(live: ServeResult) -> None:
    found = client(live, "/qa").question_answering(question="What is red?", context=CONTEXT)
    assert CONTEXT[found.start : found.end] == found.answer
    several = client(live, "/qa").question_answering(question="What is red?", context=CONTEXT, top_k=3)
    assert len(several) == 3
    assert several[0].score >= several[1].score >= several[2].score


def test_a_text_and_a_list_are_translated(live: ServeResult) -> None:
    assert isinstance(client(live, "/translate").translation("a red circle").translation_text, str)
    many = httpx.post(f"{live.url}/translate", json={"inputs": ["a red circle", "a blue square"]})
    assert [set(each) for each in many.json()] == [{"translation_text"}] * 2


def test_a_picture_is_described(live: ServeResult) -> None:
    assert isinstance(client(live, "/caption").image_to_text(picture()).generated_text, str)


def test_text_is_continued_whole_with_details_and_as_a_stream(live: ServeResult) -> None:
    writer = client(live, "/generate")
    whole = writer.text_generation("A red", max_new_tokens=8)
    pieces = list(writer.text_generation("A red", max_new_tokens=8, stream=True))
    assert "".join(pieces) == whole
    detailed = writer.text_generation("A red", max_new_tokens=8, details=True)
    assert detailed.details.generated_tokens <= 8
    assert detailed.details.finish_reason in ("length", "eos_token")
    last = list(writer.text_generation("A red", max_new_tokens=8, stream=True, details=True))[-1]
    assert last.generated_text == whole


def test_openai_s_client_gets_what_generate_gives(live: ServeResult) -> None:
    client_of_openai = openai_client(live)
    assert [model.id for model in client_of_openai.models.list()] == ["causal_lm", "chat"]
    whole = client(live, "/generate").text_generation("A red", max_new_tokens=8, details=True)
    asked: Any = {"model": "causal_lm", "prompt": "A red", "max_tokens": 8, "temperature": 0}
    found = client_of_openai.completions.create(**asked)
    assert found.choices[0].text == whole.generated_text
    assert found.usage.completion_tokens == whole.details.generated_tokens
    events = list(client_of_openai.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert "".join(event.choices[0].text for event in events[:-1]) == whole.generated_text
    assert events[-1].usage == found.usage
    with pytest.raises(openai.UnprocessableEntityError, match="temperature"):
        client_of_openai.completions.create(model="causal_lm", prompt="A red", temperature=9)
    with pytest.raises(openai.NotFoundError, match="gpt-4"):
        client_of_openai.completions.create(model="gpt-4", prompt="A red")


def test_a_chat_answers_at_its_route_and_at_openai_s(live: ServeResult) -> None:
    said: Any = SAID
    body = {"inputs": said, "parameters": {"max_new_tokens": 8}}
    whole = httpx.post(f"{live.url}/chat", json=body).json()[0]["generated_text"]
    client_of_openai = openai_client(live)
    asked: Any = {"model": "chat", "messages": said, "max_completion_tokens": 8, "temperature": 0}
    assert client_of_openai.chat.completions.create(**asked).choices[0].message.content == whole
    events = list(client_of_openai.chat.completions.create(**asked, stream=True))
    assert "".join(event.choices[0].delta.content or "" for event in events) == whole
    there = InferenceClient(model=live.url).chat_completion(said, max_tokens=8, temperature=0)
    assert there.choices[0].message.content == whole


def test_a_mask_is_filled(live: ServeResult) -> None:
    assert len(client(live, "/fill-mask").fill_mask("A red <mask>.", top_k=2)) == 2


def test_a_text_is_classified(live: ServeResult) -> None:
    first, second = client(live, "/classify").text_classification("A red circle.")
    assert first.score >= second.score
    assert first.score + second.score == pytest.approx(1)
    assert {first.label, second.label} == {"red", "blue"}
    many = httpx.post(f"{live.url}/classify", json={"inputs": ["a", "b"], "parameters": {"top_k": 1}}).json()
    assert [len(each) for each in many] == [1, 1]


def test_a_wrong_parameter_reaches_the_client_by_name(live: ServeResult) -> None:
    with pytest.raises(ValidationError, match="temperature"):
        client(live, "/generate").text_generation("A red", temperature=-1.0)
    with pytest.raises(HfHubHTTPError, match="422"):
        client(live, "/qa").question_answering(question="What?", context=CONTEXT, doc_stride=3)


@pytest.mark.parametrize("route", ["/qa", "/translate", "/caption", "/generate", "/fill-mask", "/classify", "/chat"])
def test_health_documentation_and_headers(live: ServeResult, route: str) -> None:
    health = httpx.get(f"{live.url}{route}/healthz")
    assert health.json()["status"] == "ready"
    assert health.headers["x-llmray-model"]
    assert health.headers["x-llmray-version"]
    assert re.fullmatch("[0-9a-f]{16}", health.headers["x-llmray-lineage"])
    assert f"{route}/openapi.json" in httpx.get(f"{live.url}{route}/docs").text
    assert httpx.get(f"{live.url}{route}/openapi.json").json()["servers"] == [{"url": route}]


def test_good_and_bad_requests_at_once_each_get_their_own(live: ServeResult) -> None:
    bad: list[tuple[str, bytes, int]] = [
        ("/qa", b"{", 400),
        ("/qa", json.dumps({"inputs": {"question": "What?"}}).encode(), 422),
        ("/caption", b"no picture", 415),
        ("/generate", json.dumps({"inputs": "A", "parameters": {"beams": 1}}).encode(), 422),
        ("/generate", b'{"inputs": "\\ud800"}', 422),
        ("/translate", b'{"inputs": ["a", ""]}', 422),
        ("/translate", b"x" * (2 << 20), 413),
        ("/nothing", b"{}", 404),
    ]
    good = [
        ("/qa", json.dumps({"inputs": {"question": "What is red?", "context": CONTEXT}}).encode(), 200),
        ("/caption", picture(), 200),
        ("/generate", json.dumps({"inputs": "A red", "parameters": {"max_new_tokens": 2}}).encode(), 200),
    ]
    mixed = [each for pair in zip(bad * 3, good * 8, strict=True) for each in pair]

    def ask(asked: tuple[str, bytes, int]) -> int:
        found = httpx.post(live.url + asked[0], content=asked[1], timeout=60)
        assert found.status_code == 200 or found.json()["error"]
        return found.status_code

    with ThreadPoolExecutor(16) as many:
        assert list(many.map(ask, mixed)) == [status for _, _, status in mixed]


def test_every_answer_of_a_replica_bears_an_id_of_its_own(live: ServeResult) -> None:
    asked = {task: {"inputs": inputs, "parameters": given} for task, (inputs, _, given, _) in PREDICTED.items()}
    answers = [httpx.post(live.url + ROUTES[task], json=body, timeout=60) for task, body in asked.items()]
    answers += [httpx.post(live.url + route, json={}) for route in PREFIXES.values()]  # refused
    answers += [httpx.get(f"{live.url}{route}/healthz") for route in PREFIXES.values()]
    answers += [httpx.post(f"{live.url}/generate", json=asked["causal_lm"] | {"stream": True})]
    answers += [httpx.post(f"{live.url}/v1/completions", json={"prompt": "A red", "max_tokens": 2, "stream": True})]
    assert {answer.status_code for answer in answers} == {200, 404, 422}
    assert len({answer.headers["x-request-id"] for answer in answers}) == len(answers)


def test_what_is_not_http_is_refused(live: ServeResult) -> None:
    with socket.create_connection(("127.0.0.1", int(live.url.rpartition(":")[2])), 10) as client:
        client.sendall(b"red \0 circle\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 400 ")
    assert httpx.get(f"{live.url}/qa/healthz").status_code == 200


def test_a_request_is_found_in_the_logs_by_its_id_and_its_text_is_not(live: ServeResult) -> None:
    text, identity = "Ozymandias", f"ana-{time.time_ns()}"
    for route, body in {
        "/generate": {"inputs": text, "parameters": {"max_new_tokens": 2}},
        "/translate": {"inputs": text, "parameters": {text: 1}},
        "/v1/completions": {"model": "causal_lm", "prompt": text, "max_tokens": 2},
    }.items():
        found = httpx.post(live.url + route, json=body, headers={"x-request-id": identity})
        assert (found.status_code, found.headers["x-request-id"]) == (422 if "translate" in route else 200, identity)
    folder = Path(ray._private.worker._global_node.get_logs_dir_path())
    until(lambda: sum(identity in log.read_text(errors="replace") for log in folder.rglob("*.log")) >= 3)
    assert not [log for log in folder.rglob("*") if log.is_file() and text in log.read_text(errors="replace")]


def test_prometheus_is_told_of_requests_errors_passes_and_tokens(live: ServeResult) -> None:
    httpx.post(f"{live.url}/generate", json={"inputs": "A red", "parameters": {"max_new_tokens": 2}})
    httpx.post(f"{live.url}/generate", json={"inputs": ""})
    url = f"http://127.0.0.1:{ray.nodes()[0]['MetricsExportPort']}/metrics"
    wanted = {
        'ray_llmray_queue_seconds_bucket{.*application="causal_lm"',
        'ray_llmray_pass_seconds_count{.*application="causal_lm"',
        'ray_llmray_batch_size_bucket{.*application="causal_lm"',
        'ray_llmray_tokens(_total)?{.*application="causal_lm"',
        'ray_serve_num_http_requests(_total)?{.*route="/generate"',
        'ray_serve_num_http_error_requests(_total)?{.*error_code="422".*route="/generate"',
        'ray_serve_http_request_latency_ms_bucket{.*route="/generate"',
    }
    until(lambda: not [each for each in wanted if not re.search(each, httpx.get(url, timeout=30).text)], within_s=60)


def test_every_panel_of_the_dashboard_has_data(live: ServeResult, panels_have_data: Callable[[str], None]) -> None:
    bodies = [{"inputs": text, "parameters": {"max_new_tokens": 2}} for text in ("A red", "")]  # one is refused
    with asking(f"{live.url}/generate", bodies):
        panels_have_data("serving")


@pytest.mark.parametrize("name", ["x-request-id", "x-request-timeout-seconds", "serve_multiplexed_model_id"])
def test_headers_that_ray_serve_cannot_read_break_nothing(live: ServeResult, name: str) -> None:
    headers = [(name.encode(), b"\xff0.000001")]
    assert httpx.get(f"{live.url}/qa/openapi.json", headers=headers).status_code == 200


@pytest.mark.browser
@pytest.mark.filterwarnings("ignore::Warning:gradio")
def test_the_page_shows_what_each_endpoint_answers(live: ServeResult, browser: Browser) -> None:
    url, close = launch(live.url)
    page = browser.new_page()
    try:
        page.goto(url)
        expect(page.locator(".lr-up")).to_have_count(4)
        for tab, start, answer in (
            ("Ask", "#ask-examples button", "#ask-answer mark"),
            ("Translate", "#translate-examples button", "#translate-answer .lr-said"),
            ("Caption", "#caption-draw", "#caption-answer .lr-said"),
            ("Write", "#write-examples button", "#write-answer .lr-written"),
        ):
            page.get_by_role("tab", name=tab).click()
            page.locator(start).first.click()
            expect(page.locator(answer)).to_be_visible()
            by = page.locator(f"#{tab.lower()}-answer .lr-by")
            expect(by).to_contain_text(re.compile(r"Answered by .+ in [\d.]+ m?s"))
        page.get_by_role("tab", name="Models").click()
        expect(page.locator("#models-table tbody tr")).to_have_count(len(live.endpoints) - 1)  # /v1 holds none
    finally:
        page.close()
        close()


@pytest.mark.browser
def test_the_api_page_needs_no_other_machine(live: ServeResult, browser: Browser) -> None:
    asked: list[str] = []
    page = browser.new_page()
    page.on("request", lambda request: asked.append(request.url))
    try:
        page.goto(f"{live.url}/qa/docs")
        expect(page.locator(".opblock-summary-description").first).to_have_text(
            "Find the answer to a question in a context"
        )
    finally:
        page.close()
    assert not [url for url in asked if not url.startswith((live.url, "data:"))]


def listening() -> set[tuple[str, int]]:
    """Addresses (in hexadecimal, as Linux writes them) and ports that take TCP connections on this machine."""
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    places = [row[1].split(":") for row in rows if row[3] == "0A"]
    return {(address, int(port, 16)) for address, port in places}


def test_only_loopback_takes_requests(live: ServeResult) -> None:
    """Ray's own gRPC ports aside, which its tokens guard."""
    port = int(live.url.rpartition(":")[2])
    found = listening()
    assert {address for address, at in found if at == port} == {"0100007F"}
    assert {at for _, at in found} & {8404, 9101} == set()


def test_status_tells_what_is_served(live: ServeResult, models: dict[str, str]) -> None:
    found = status()
    assert found.url == live.url
    behind = {"openai": f"{models['causal_lm']}, {models['chat']}"}
    assert {end.task: end.model for end in found.endpoints} == models | behind
    assert {end.status for end in found.endpoints} == {"RUNNING"}


def test_status_tells_how_much_is_asked_now(live: ServeResult) -> None:
    def of(task: str) -> EndpointStatus:
        return next(end for end in status().endpoints if end.task == task)

    before = of("qa").failed
    with asking(f"{live.url}/qa", [{"inputs": {"question": "What is red?", "context": CONTEXT}}]):
        until(lambda: (of("qa").requests_per_s or 0) > 1)
    now = of("qa")
    assert (now.response_ms or 0) > 0
    assert now.failed == before
    until(lambda: of("qa").requests_per_s == 0)


def test_models_of_one_task_answer_under_their_names(live: ServeResult, models: dict[str, str], tmp_path: Path) -> None:
    other = shutil.copytree(models["translation"], tmp_path / "back" / "model")
    ends = [
        {"task": "translation", "model": model, "name": name, "cpus": 0.1, "max_queued": 64}
        for name, model in (("en-de", models["translation"]), ("de-en", str(other)))
    ]
    found = deploy(Serve.model_validate({"port": free_block()[0], "endpoints": ends}), None, Progress.silent())
    assert {end.route for end in found.endpoints} >= {"/translate", "/translate/de-en"}
    until(lambda: httpx.get(f"{live.url}/translate/en-de/healthz").status_code == 200)

    def model_at(route: str) -> str:
        answer = httpx.post(f"{live.url}{route}", json={"inputs": "a red circle"})
        assert set(answer.json()[0]) == {"translation_text"}
        return answer.headers["x-llmray-model"]

    assert Client(live.url).names("/translate") == ["en-de", "de-en"]
    first = Path(models["translation"]).name
    assert [model_at(f"/translate{name}") for name in ("", "/en-de", "/de-en")] == [first, first, "back"]
    assert httpx.get(f"{live.url}/translate/de-en/healthz").json()["model"] == "back"
    assert httpx.get(f"{live.url}/translate/docs").status_code == 200
    assert httpx.post(f"{live.url}/translate/fr-de", json={"inputs": "a"}).status_code == 404


def test_an_exported_form_answers_once_the_job_is_served_again(
    live: ServeResult, models: dict[str, str], tmp_path: Path
) -> None:
    model = shutil.copytree(models["qa"], tmp_path / "model")
    asked = {"inputs": {"question": "What is red?", "context": CONTEXT}}
    before = httpx.post(f"{live.url}/qa", json=asked)
    assert before.headers["x-llmray-engine"] == "torch"
    rows = {"eval": "builtin:shapes?rows=8&split=eval"}
    made = export(str(model), "onnx", {"data": rows, "evaluate": {"tolerance_percent": 100}}, "evaluate.limit=4")
    assert (made.rows, made.folder) == (4, f"{model}/onnx")
    end = Endpoint.model_validate({"task": "qa", "model": str(model), "cpus": 0.1, "engine": "onnx"})
    deploy(Serve(port=free_block()[0], endpoints=(end,)), None, Progress.silent())
    until(lambda: httpx.get(f"{live.url}/qa/healthz").json()["engine"] == "onnx float32")
    after = httpx.post(f"{live.url}/qa", json=asked)
    assert after.headers["x-llmray-engine"] == "onnx float32"
    assert {**after.json(), "score": 0} == {**before.json(), "score": 0}
    assert after.json()["score"] == pytest.approx(before.json()["score"], abs=1e-5)


@pytest.fixture
def endless(models: dict[str, str], tmp_path: Path) -> str:
    """A model that writes the last word again, thousands of times, and no end."""
    words = {"from": "new:llama-tiny", "tokenizer": models["causal_lm"]}
    job = Job.model_validate({"task": {"name": "causal_lm", "seq_len": MOST_TOKENS}, "model": words})
    assert job.model is not None
    task = make(job.task, processor(job.model))
    model, [word] = build(job.model, task), task.processor.tokenizer(" red", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "norm" not in name:
                weights.zero_()
        model.get_input_embeddings().weight[word] = 1  # of which the scores are made, too
    save(model, task, str(tmp_path / "endless"))
    return str(tmp_path / "endless")


def test_who_leaves_a_stream_gives_up_the_place_for_the_next(live: ServeResult, endless: str) -> None:
    """Of two places one is kept by somebody who reads for long: the next can have only that of who left."""
    two = {"task": "causal_lm", "model": endless, "cpus": 0.1, "max_batch_size": 2, "max_replicas": 1}
    end = Endpoint.model_validate(two)
    deploy(Serve(port=free_block()[0], endpoints=(end,)), None, Progress.silent())
    until(lambda: "endless" in httpx.get(f"{live.url}/v1/models").text)
    until(lambda: httpx.get(f"{live.url}/generate/healthz").json()["model"] == "endless")

    def streamed(route: str, tokens: int) -> AbstractContextManager[httpx.Response]:
        options = {"max_tokens": tokens, "temperature": 0, "prompt": " red"}
        body = options if "v1" in route else {"inputs": " red", "parameters": {"max_new_tokens": tokens}}
        return httpx.stream("POST", live.url + route, json=body | {"stream": True}, timeout=120)

    with reading(streamed("/generate", MOST_TOKENS // 2)) as ended:
        for route in ("/generate", "/v1/completions"):
            with streamed(route, MOST_TOKENS - 1) as left:
                assert "red" in next(left.iter_lines())
            with streamed(route, 2) as following:
                assert "red" in following.read().decode()
            assert not ended.is_set(), route


@contextmanager
def reading(stream: AbstractContextManager[httpx.Response]) -> Iterator[threading.Event]:
    """Somebody reads a stream all the while; whether it has ended."""
    begun, over, ended = threading.Event(), threading.Event(), threading.Event()

    def read() -> None:
        with stream as answer:
            for _ in answer.iter_lines():
                begun.set()
                if over.is_set():
                    return
        ended.set()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        assert begun.wait(120)
        yield ended
    finally:
        over.set()
        reader.join()


@pytest.fixture(scope="module")
def guarded(live: ServeResult, models: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The file of keys that `/generate` and `/v1` ask for from now on."""
    path = str(tmp_path_factory.mktemp("keys") / "keys.json")
    keys.create(path, "nobody")
    end = Endpoint.model_validate({"task": "causal_lm", "model": models["causal_lm"], "cpus": 0.1})
    deploy(Serve(port=free_block()[0], endpoints=(end,), keys=path), None, Progress.silent())
    until(lambda: statuses(live, "llmray-wrong") == {401})
    return path


def statuses(live: ServeResult, key: str) -> set[int]:
    """Of both routes that are guarded."""
    headers = {"authorization": f"Bearer {key}"}
    body = {"inputs": "A red", "prompt": "A red", "max_tokens": 2}
    asked = (("/generate", ("inputs",)), ("/v1/completions", ("prompt", "max_tokens")))
    return {
        httpx.post(live.url + route, json={name: body[name] for name in names}, headers=headers).status_code
        for route, names in asked
    }


def test_a_key_is_asked_for_until_it_is_revoked(live: ServeResult, guarded: str) -> None:
    made = keys.create(guarded, "ana")
    until(lambda: statuses(live, made.key) == {200}, within_s=3)
    assert InferenceClient(model=f"{live.url}/generate", token=made.key).text_generation("A red", max_new_tokens=1)
    assert openai_client(live, made.key).completions.create(model="causal_lm", prompt="A red", max_tokens=1).choices
    assert httpx.get(f"{live.url}/generate/healthz").status_code == 200
    assert httpx.get(f"{live.url}/generate/docs").status_code == 401
    keys.revoke(guarded, made.id)
    until(lambda: statuses(live, made.key) == {401}, within_s=3)


def test_a_wrong_key_raises_in_the_clients_what_they_call_it(live: ServeResult, guarded: str) -> None:
    with pytest.raises(openai.AuthenticationError, match="key"):
        openai_client(live, "llmray-wrong").completions.create(model="causal_lm", prompt="A red")
    hub = InferenceClient(token="llmray-wrong")
    asking: list[Callable[[], object]] = [
        lambda: hub.chat_completion(SAID, model=live.url),
        lambda: hub.text_generation("A red", model=f"{live.url}/generate"),
        lambda: list(hub.text_generation("A red", model=f"{live.url}/generate", stream=True)),
    ]
    for ask in asking:
        with pytest.raises(HfHubHTTPError, match="401") as refused:
            ask()
        assert refused.value.response.status_code == 401


@pytest.mark.browser
@pytest.mark.filterwarnings("ignore::Warning:gradio")
def test_the_page_writes_with_a_key_and_says_where_to_enter_one(
    live: ServeResult, guarded: str, browser: Browser
) -> None:
    made = keys.create(guarded, "ben")
    url, close = launch(live.url)
    page = browser.new_page()
    try:
        page.goto(url)
        page.get_by_role("tab", name="Write").click()
        page.locator("#write-examples button").first.click()
        expect(page.locator("#write-note")).to_contain_text("This endpoint asks for an API key.")
        page.get_by_role("button", name="Connection").click()
        page.get_by_label("API key").fill("llmray-wrong")
        page.locator("#write-button").click()
        expect(page.locator("#write-note")).to_contain_text("This API key is not accepted here.")
        page.get_by_label("API key").fill(made.key)
        page.locator("#write-button").click()
        expect(page.locator("#write-answer .lr-by")).to_be_visible()
        expect(page.locator("#write-note")).to_be_empty()
    finally:
        page.close()
        close()


def until(true: Callable[[], bool], within_s: float = 30) -> None:
    """Wait; a redeployed application's old replicas answer until its new ones do."""
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
def test_a_version_is_rolled_out_kept_and_rolled_back_under_load(
    live: ServeResult, models: dict[str, str], speechless: str, tmp_path: Path
) -> None:
    """No request fails; a version that cannot be read or answer is never asked; what is no different is left alone."""
    root = str(tmp_path / "registry")
    for version, model in enumerate((models["qa"], models["qa"], models["qa"], speechless), 1):
        registry.register(root, "reader", model, {})
        registry.promote(root, "reader", version, "champion")
    Path(root, "reader", "v3", "model.safetensors").write_bytes(b"cut short")
    endpoint = Endpoint.model_validate({"task": "qa", "model": "registry:reader@champion", "cpus": 0.1})

    def roll_out() -> set[str]:
        """The replicas that run then."""
        deploy(Serve(port=free_block()[0], endpoints=(endpoint,)), root, Progress.silent())
        controller = ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
        found = ray.get(controller.get_serve_instance_details.remote())["applications"]["qa"]["deployments"]["qa"]
        return {replica["replica_id"] for replica in found["replicas"] if replica["state"] == "RUNNING"}

    def version() -> str:
        return httpx.get(f"{live.url}/qa/healthz").headers["x-llmray-version"]

    question = {"inputs": {"question": "What is red?", "context": CONTEXT}}
    with asking(f"{live.url}/qa", [question]) as statuses:
        for broken, why in (("4", "cannot answer a plain qa request"), ("3", "cut short")):
            with pytest.raises(ClusterError, match=why):
                roll_out()
            assert version() != broken
            registry.rollback(root, "reader", "champion")
        second = roll_out()
        until(lambda: version() == "2")
        assert roll_out() & second
        registry.rollback(root, "reader", "champion")
        assert not roll_out() & second
        until(lambda: version() == "1")
    assert set(statuses) == {200}
    assert len(statuses) > 20


@contextmanager
def asking(url: str, bodies: Sequence[dict[str, Any]]) -> Iterator[list[int]]:
    """Somebody asks all the while; what was answered so far."""
    statuses: list[int] = []
    turn, over = cycle(bodies), threading.Event()

    def ask() -> None:
        while not over.wait(0.05):
            statuses.append(httpx.post(url, json=next(turn), timeout=60).status_code)

    asker = threading.Thread(target=ask)
    asker.start()
    try:
        yield statuses
    finally:
        over.set()
        asker.join()


@pytest.mark.slow
def test_the_last_copy_ends_when_nobody_asks_and_comes_back_for_who_does(
    live: ServeResult, models: dict[str, str]
) -> None:
    sleepy = Endpoint.model_validate(
        {"task": "translation", "model": models["translation"], "cpus": 0.1, "min_replicas": 0, "idle_s": 1}
    )
    deploy(Serve(port=free_block()[0], endpoints=(sleepy,)), None, Progress.silent())

    def copies() -> int:
        return next(end.replicas for end in status().endpoints if end.task == "translation")

    def ask(number: int) -> int:
        return httpx.post(f"{live.url}/translate", json={"inputs": f"circle {number}"}, timeout=120).status_code

    for _ in range(2):
        until(lambda: copies() == 0, within_s=120)
        with ThreadPoolExecutor(8) as many:
            assert set(many.map(ask, range(16))) == {200}
        assert copies() >= 1


def test_a_missing_model_is_named_and_the_others_stay(live: ServeResult, tmp_path: Path) -> None:
    gone = Endpoint.model_validate({"task": "qa", "model": str(tmp_path / "gone"), "cpus": 0.1})
    with pytest.raises(ClusterError, match=r"/qa could not be deployed: .*gone"):
        deploy(Serve(port=free_block()[0], endpoints=(gone,)), None, Progress.silent())
    assert httpx.get(f"{live.url}/translate/healthz").status_code == 200
    assert ray.is_initialized()
