"""`/v1` as the `openai` package and huggingface_hub's chat speak it; small functions stand where models would."""

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Any

import openai
import pytest
from starlette.testclient import TestClient

from llmray.job.errors import RequestError
from llmray.model.generate import Stream
from llmray.tasks.base import Request
from serve import completions, front
from serve.batcher import Batcher, Outcome
from serve.shapes import Identity, Part

SAID: list[Request] = []
REST = {"finish_reason": "eos_token", "prompt_tokens": 5, "tokens": 3}


def predict(requests: Sequence[Request]) -> list[Outcome]:
    SAID.extend(requests)
    return [answer(request) for request in requests]


def answer(request: Request) -> Outcome:
    if request.inputs.get("text") == "long":
        return RequestError("inputs: 300 tokens; this model reads at most 255")
    if request.parameters["max_new_tokens"] == 2:
        return {"generated_text": "red circle", **REST, "finish_reason": "length"}
    if request.parameters["stop"]:
        return {"generated_text": "red circle END", **REST, "finish_reason": "stop_sequence"}
    return {"generated_text": "red circle", **REST}


def stream(request: Request) -> Stream:
    SAID.append(request)
    if request.inputs.get("text") == "long":
        raise RequestError("inputs: 300 tokens; this model reads at most 255")
    yield "red "
    if request.inputs.get("text") == "explode":
        raise ZeroDivisionError("boom")
    yield "circle"
    if request.parameters["stop"]:
        yield " END"
        return {**REST, "finish_reason": "stop_sequence"}
    return REST


class Local:
    """A model in this process."""

    def __init__(self, task: str, name: str) -> None:
        self.task, self.known = task, Identity(name, "3", "torch", "abc")
        self.batcher = Batcher(predict, stream, max_batch_size=4, wait_s=0, max_queued=8)

    async def identity(self) -> Identity:
        return self.known

    def respond(self, body: bytes) -> AsyncGenerator[Part, None]:
        return completions.respond(self.task, self.known, self.batcher, body)


@pytest.fixture
def http() -> Iterator[TestClient]:
    SAID.clear()
    app = front.build({"causal_lm": Local("causal_lm", "writer"), "chat": Local("chat", "talker")})
    with TestClient(app, root_path="/v1", base_url="http://test") as client:
        yield client


@pytest.fixture
def client(http: TestClient) -> openai.OpenAI:
    return openai.OpenAI(base_url="http://test/v1", api_key="none", http_client=http, max_retries=0)


def test_a_text_is_continued(client: openai.OpenAI) -> None:
    found = client.completions.create(model="writer", prompt="There is a")
    assert (found.object, found.model, found.choices[0].text) == ("text_completion", "writer", "red circle")
    assert found.choices[0].finish_reason == "stop"
    assert found.usage is not None
    assert (found.usage.prompt_tokens, found.usage.completion_tokens, found.usage.total_tokens) == (5, 3, 8)
    [asked] = SAID
    assert asked.inputs == {"text": "There is a"}
    assert asked.parameters == {
        "max_new_tokens": 16,
        "stop": (),
        "do_sample": True,
        "temperature": 1.0,
        "top_p": 1.0,
        "seed": None,
    }


def test_several_prompts_and_answers_keep_their_order_and_count_each_prompt_once(client: openai.OpenAI) -> None:
    found = client.completions.create(model="writer", prompt=["a", "b"], n=2, seed=7)
    assert [choice.index for choice in found.choices] == [0, 1, 2, 3]
    assert [(each.inputs["text"], each.parameters["seed"]) for each in SAID] == [("a", 7), ("a", 8), ("b", 7), ("b", 8)]
    assert found.usage is not None
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (10, 12)


def test_an_assistant_answers(client: openai.OpenAI) -> None:
    parts: Any = [{"type": "text", "text": "What is "}, {"type": "text", "text": "red?"}]
    found = client.chat.completions.create(
        model="talker",
        messages=[{"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts}],
        temperature=0,
        max_tokens=9,
        max_completion_tokens=2,
    )
    assert found.object == "chat.completion"
    assert (found.choices[0].message.role, found.choices[0].message.content) == ("assistant", "red circle")
    assert found.choices[0].finish_reason == "length"
    [asked] = SAID
    assert asked.inputs["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is red?"},
    ]
    assert asked.parameters == {"max_new_tokens": 2, "stop": ()}


def test_an_answer_can_be_sent_back_as_it_came(client: openai.OpenAI) -> None:
    first: Any = {"role": "user", "content": "What?"}
    said: Any = client.chat.completions.create(model="talker", messages=[first]).choices[0].message
    client.chat.completions.create(model="talker", messages=[first, said, first])
    client.chat.completions.create(model="talker", messages=[first, said.model_dump(), first])
    assert [len(each.inputs["messages"]) for each in SAID] == [1, 3, 3]


@pytest.mark.parametrize("stop", ["END", ["never", " END"]])
def test_a_stop_string_is_not_told(client: openai.OpenAI, stop: Any) -> None:
    whole = client.completions.create(model="writer", prompt="a", stop=stop).choices[0]
    assert (whole.text.rstrip(), whole.finish_reason) == ("red circle", "stop")
    pieces = list(client.completions.create(model="writer", prompt="a", stop=stop, stream=True))
    assert "".join(each.choices[0].text for each in pieces) == whole.text
    assert pieces[-1].choices[0].finish_reason == "stop"


def test_a_chat_streams_and_counts_when_asked_to(client: openai.OpenAI) -> None:
    said: Any = [{"role": "user", "content": "What?"}]
    chunks = list(
        client.chat.completions.create(
            model="talker", messages=said, stream=True, stream_options={"include_usage": True}
        )
    )
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk.id for chunk in chunks}) == 1
    deltas = [chunk.choices[0].delta for chunk in chunks[:-1]]
    assert (deltas[0].role, [delta.content for delta in deltas]) == ("assistant", ["", "red ", "circle", None])
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None, None, None, "stop"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 8
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * 4


def test_a_stream_ends_with_done(http: TestClient) -> None:
    found = http.post("/v1/completions", json={"model": "writer", "prompt": "a", "stream": True})
    assert found.headers["content-type"].startswith("text/event-stream")
    lines = [line for line in found.text.splitlines() if line]
    assert lines[-1] == "data: [DONE]"
    assert [json.loads(line[6:])["choices"][0]["text"] for line in lines[:-1]] == ["red ", "circle", ""]


def test_the_models_are_listed(client: openai.OpenAI, http: TestClient) -> None:
    assert [model.id for model in client.models.list()] == ["talker", "writer"]
    assert client.models.retrieve("writer").owned_by == "llmray"
    with pytest.raises(openai.NotFoundError, match="there is writer, talker"):
        client.models.retrieve("other")
    assert http.get("/v1/healthz").json() == {"status": "ready", "models": ["writer", "talker"]}
    described = http.get("/v1/openapi.json").json()
    assert set(described["paths"]) == {"/completions", "/chat/completions", "/models", "/models/{name}", "/healthz"}


def test_every_answer_names_model_and_version(http: TestClient) -> None:
    found = http.post("/v1/completions", json={"prompt": "a"})
    assert (found.headers["x-llmray-model"], found.headers["x-llmray-version"]) == ("writer", "3")


def test_headers_and_names_follow_a_version_that_is_rolled_out() -> None:
    local = Local("causal_lm", "writer")
    with TestClient(front.build({"causal_lm": local}), base_url="http://test") as http:

        def ask(**given: Any) -> Any:
            return http.post("/completions", json={"prompt": "a", **given})

        assert ask().headers["x-llmray-version"] == "3"
        local.known = Identity("writer", "4", "onnx int8", "def")
        assert (ask().headers["x-llmray-version"], ask().headers["x-llmray-engine"]) == ("4", "onnx int8")
        local.known = Identity("author", "1", "torch", "abc")
        assert ask(model="author").json()["model"] == "author"
        assert ask(model="writer").status_code == 404


def test_a_client_whose_address_is_the_model_needs_no_name(client: openai.OpenAI) -> None:
    said: Any = [{"role": "user", "content": "What?"}]
    assert client.chat.completions.create(model="dummy", messages=said).model == "talker"


def test_a_model_that_is_not_there_or_learned_something_else_is_named(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="gpt-4") as caught:
        client.completions.create(model="gpt-4", prompt="a")
    assert (caught.value.code, caught.value.type) == ("model_not_found", "invalid_request_error")
    with pytest.raises(openai.NotFoundError, match="writer was trained for causal_lm; ask /v1/completions"):
        client.chat.completions.create(model="writer", messages=[{"role": "user", "content": "a"}])
    with pytest.raises(openai.NotFoundError, match="talker was trained for chat; ask /v1/chat/completions"):
        client.completions.create(model="talker", prompt="a")


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("completions", b"", 400, "empty"),
        ("completions", b"{", 400, "not valid JSON"),
        ("completions", b"[]", 422, "the body must be a JSON object, not a list"),
        ("completions", {"model": 3}, 422, "model must be a string, not a number"),
        ("completions", {}, 422, "prompt is missing"),
        ("completions", {"prompt": [1, 2]}, 422, "prompt[0] must be a string, not a number"),
        ("completions", {"prompt": "a", "temperature": 3}, 422, "temperature: Input should be less than or equal to 2"),
        (
            "completions",
            {"prompt": "a", "max_tokens": 0},
            422,
            "max_tokens: Input should be greater than or equal to 1",
        ),
        ("completions", {"prompt": "a", "stop": ["x"] * 5}, 422, "stop: "),
        ("completions", {"prompt": "a", "echo": True}, 422, "echo is not supported here"),
        ("completions", {"prompt": "a", "top_k": 3}, 422, "top_k: unknown field"),
        ("completions", {"prompt": ["a"] * 65}, 413, "at most 64 texts"),
        ("completions", {"prompt": ["a", "b"], "stream": True}, 422, "stream: one text is written at a time"),
        ("completions", {"prompt": "long"}, 422, "prompt: 300 tokens; this model reads at most 255"),
        ("completions", {"prompt": "long", "stream": True}, 422, "prompt: 300 tokens; this model reads at most 255"),
        ("chat/completions", {"messages": "a"}, 422, "messages must be a list of messages, not a string"),
        ("chat/completions", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 422, "content[0]"),
        ("chat/completions", {"messages": [], "tools": [{"type": "function"}]}, 422, "tools is not supported here"),
        ("chat/completions", {"messages": [{"role": "user", "content": "a\0"}]}, 422, "null character"),
        ("nothing", {}, 404, "/v1/nothing does not exist"),
        ("models", {}, 405, "POST is not possible at /v1/models"),
    ],
)
def test_what_is_refused_and_in_which_form(http: TestClient, path: str, body: Any, status: int, words: str) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    found = http.post(f"/v1/{path}", content=content)
    assert words in found.json()["error"]["message"]
    assert (found.status_code, set(found.json()["error"])) == (status, {"message", "type", "param", "code"})


def test_a_stream_that_breaks_raises_in_the_client(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIError, match="boom"):
        list(client.completions.create(model="writer", prompt="explode", stream=True))


def test_a_model_stops_writing_once_the_reader_has_left(endless: Any) -> None:
    stream, closed = endless

    async def run() -> None:
        batcher = Batcher(predict, stream, max_batch_size=1, wait_s=0, max_queued=1)
        parts = completions.respond(
            "causal_lm", Identity("writer", "3", "torch", "abc"), batcher, b'{"prompt": "a", "stream": true}'
        )
        assert (await anext(parts))[0] == 200
        assert [b"on" in await anext(parts) for _ in range(3)] == [False, True, True]
        await parts.aclose()

    asyncio.run(run())
    assert closed.wait(10)


def test_a_full_queue_is_refused_with_a_time_to_come_back(http: TestClient) -> None:
    local = Local("causal_lm", "writer")
    local.batcher.streams_waiting = 8
    with TestClient(front.build({"causal_lm": local}), root_path="/v1") as busy:
        found = busy.post("/v1/completions", json={"prompt": "a", "stream": True})
    assert (found.status_code, found.headers["retry-after"]) == (503, "1")
    assert found.json()["error"]["type"] == "server_error"
