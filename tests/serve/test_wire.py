"""The JSON of every route: what is read, what is refused and in which words, what is written."""

import base64
import io
import json
from typing import Any

import pytest
from huggingface_hub import TextClassificationOutputElement
from PIL import Image

from llmray.job.errors import RequestError
from serve import limits, openapi, wire
from serve.shapes import ROUTES, failure

JSON = "application/json"
QA = {"question": "What is red?", "context": "The circle is red."}


def picture(kind: str = "PNG", size: tuple[int, int] = (8, 8)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, "red").save(file, kind)
    return file.getvalue()


def packed(value: Any) -> bytes:
    return json.dumps(value).encode()


def read(task: str, value: Any) -> wire.Call:
    return wire.read(task, packed(value), JSON)


def refusal(task: str, body: Any, content_type: str = JSON) -> tuple[str, int]:
    with pytest.raises(RequestError) as caught:
        wire.read(task, body if isinstance(body, bytes) else packed(body), content_type)
    return str(caught.value), caught.value.status


def test_a_question_is_read_and_null_parameters_are_left_out() -> None:
    call = read("qa", {"inputs": QA, "parameters": {"top_k": 2, "doc_stride": None}})
    assert call.requests[0].inputs == QA
    assert call.requests[0].parameters == {"top_k": 2}


def test_translation_reads_one_text_or_a_list_in_order() -> None:
    assert [each.inputs["text"] for each in read("translation", {"inputs": "one"}).requests] == ["one"]
    assert [each.inputs["text"] for each in read("translation", {"inputs": ["one", "two"]}).requests] == ["one", "two"]


def test_a_chat_reads_a_conversation_or_what_a_user_says() -> None:
    said = [{"role": "user", "content": "Hello"}]
    assert read("chat", {"inputs": "Hello"}).requests[0].inputs == {"messages": said}
    assert read("chat", {"inputs": said, "stream": True}).requests[0].inputs == {"messages": said}


def test_nested_generation_parameters_are_laid_flat() -> None:
    body = {"inputs": "one", "parameters": {"generate_parameters": {"max_new_tokens": 3}}}
    assert read("translation", body).requests[0].parameters == {"max_new_tokens": 3}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_pictures_are_read_as_bytes_as_base64_and_as_data_url(kind: str) -> None:
    data = picture(kind)
    coded = base64.b64encode(data).decode()
    for body, content_type in (
        (data, "image/png"),
        (data, ""),
        (data, "application/x-www-form-urlencoded"),
        (packed({"inputs": coded}), JSON),
        (packed({"inputs": coded}), "application/x-www-form-urlencoded"),
        (packed({"inputs": f"data:image/png;base64,{coded}"}), JSON),
    ):
        assert wire.read("captioning", body, content_type).requests[0].inputs == {"image": data}


def test_generate_reads_stream_and_details() -> None:
    call = read("causal_lm", {"inputs": "There", "stream": True, "parameters": {"details": True, "seed": 1}})
    assert (call.stream, call.details) == (True, True)
    assert call.requests[0].parameters == {"seed": 1}
    assert read("causal_lm", {"inputs": "There", "stream": None}).stream is False


@pytest.mark.parametrize(
    ("task", "body", "status", "words"),
    [
        ("qa", b"", 400, "empty"),
        ("qa", b"{", 400, "not valid JSON"),
        ("qa", b"\xff\xfe\x00", 400, "not valid JSON"),
        ("qa", b"\x00\x00", 400, "not valid JSON"),
        ("qa", b'{"inputs": NaN}', 400, "NaN"),
        ("causal_lm", b'{"inputs": "a", "parameters": {"temperature": 1e999}}', 400, "1e999"),
        ("causal_lm", b'{"inputs": "a", "parameters": {"seed": ' + b"9" * 5000 + b"}}", 400, "not valid JSON"),
        ("qa", b"[" * 200_000, 400, "nested too deeply"),
        ("qa", [], 422, "the body must be a JSON object, not a list"),
        ("qa", "text", 422, "the body must be a JSON object, not a string"),
        ("qa", {}, 422, "inputs is missing"),
        ("qa", {"inputs": None}, 422, "inputs is missing"),
        ("qa", {"inputs": "text"}, 422, "inputs must be a JSON object, not a string"),
        ("qa", {"inputs": {"question": "Who?"}}, 422, "inputs.context is missing"),
        ("qa", {"inputs": {"context": "He."}}, 422, "inputs.question is missing"),
        ("qa", {"inputs": QA | {"context": 3}}, 422, "inputs.context must be a string, not a number"),
        ("qa", {"inputs": QA | {"question": " \n"}}, 422, "inputs.question is empty"),
        ("qa", {"inputs": QA | {"answer": "x"}}, 422, 'unknown field inputs."answer"'),
        ("qa", {"inputs": QA, "stream": True}, 422, 'unknown field "stream"; allowed: inputs, parameters'),
        ("qa", {"inputs": QA, "parameters": []}, 422, "parameters must be a JSON object, not a list"),
        ("translation", {"inputs": []}, 422, "inputs is an empty list"),
        ("translation", {"inputs": ["a", None]}, 422, "inputs[1] must be a string, not null"),
        ("translation", {"inputs": ["a", ""]}, 422, "inputs[1] is empty"),
        ("translation", {"inputs": ["a"] * 65}, 413, "65 texts"),
        ("translation", {"inputs": "a" * (limits.MAX_CHARACTERS + 1)}, 413, "100,001 characters"),
        ("translation", {"inputs": "a\0b"}, 422, "null character at position 1"),
        ("translation", b'{"inputs": "ab\\ud800"}', 422, "inputs is not valid Unicode"),
        ("causal_lm", b'{"inputs": "a", "parameters": {"\\udfff": 1}}', 422, "parameters is not valid Unicode"),
        ("translation", {"inputs": "a", "parameters": {"generate_parameters": 1}}, 422, "parameters.generate_param"),
        ("causal_lm", {"inputs": "a", "stream": "yes"}, 422, "stream must be true or false, not a string"),
        ("causal_lm", {"inputs": "a", "parameters": {"details": 1}}, 422, "parameters.details must be true or false"),
        ("causal_lm", {"inputs": ["a"]}, 422, "inputs must be a string, not a list"),
        ("classification", {"inputs": ["a", ""]}, 422, "inputs[1] is empty"),
        ("chat", {"inputs": 5}, 422, "inputs must be a list of messages, not a number"),
        ("chat", {"inputs": [{"role": "bot", "content": "a"}]}, 422, 'inputs[0].role is "bot"; allowed: system, user'),
        ("chat", {"inputs": [{"role": "user"}]}, 422, "inputs[0].content must be a string, not null"),
        ("masked_lm", {"inputs": True}, 422, "inputs must be a string, not true or false"),
        ("captioning", {"inputs": 7}, 422, "inputs must be the picture in base64"),
        ("captioning", {"inputs": "no base64!"}, 422, "not valid base64"),
        ("captioning", {"inputs": "käse"}, 422, "not valid base64"),
        ("captioning", {"inputs": "\ud800"}, 422, "not valid base64"),
        ("captioning", {"inputs": "http://169.254.169.254/latest"}, 422, "not valid base64"),
        ("captioning", {"inputs": base64.b64encode(b"hello").decode()}, 415, "inputs is not a picture"),
        ("captioning", b"{}", 422, "inputs is missing"),
    ],
)
def test_what_is_refused(task: str, body: Any, status: int, words: str) -> None:
    message, found = refusal(task, body)
    assert words in message
    assert found == status


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "empty"),
        (b"hello", 415, "the body is not a picture; allowed: PNG, JPEG"),
        (b"\0" * 100, 415, "not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415, "not a picture"),
        (picture(size=(64, 64))[:60], 415, "broken picture"),
        (picture(size=(6000, 5000)), 413, "6000 × 5000 pixels"),
        (b"x" * (limits.MAX_PICTURE_BYTES + 1), 413, "10,485,761 bytes"),
    ],
)
def test_what_is_no_picture(body: bytes, status: int, words: str) -> None:
    message, found = refusal("captioning", body, "image/png")
    assert words in message
    assert found == status


def test_answers_have_the_client_s_shapes() -> None:
    one = {"answer": "red", "score": 0.5, "start": 0, "end": 3}
    two = {"answer": "blue", "score": 0.2, "start": 4, "end": 8}
    asked = read("qa", {"inputs": QA, "parameters": {"top_k": 2}})
    assert wire.write("qa", asked, [{"candidates": [one, two]}]) == [one, two]
    assert wire.write("qa", read("qa", {"inputs": QA}), [{"candidates": [one]}]) == one
    text_number = read("qa", {"inputs": QA, "parameters": {"top_k": "2"}})
    assert wire.write("qa", text_number, [{"candidates": [one, two]}]) == [one, two]
    nothing = wire.write("qa", read("qa", {"inputs": QA}), [{"candidates": []}])
    assert nothing == {"answer": "", "score": 0.0, "start": 0, "end": 0}
    texts = read("translation", {"inputs": ["a", "b"]})
    assert wire.write("translation", texts, [{"translation_text": "x"}, {"translation_text": "y"}]) == [
        {"translation_text": "x"},
        {"translation_text": "y"},
    ]


def test_classes_are_one_list_an_input_as_the_client_reads_them() -> None:
    found = [{"candidates": [{"label": "a", "score": 0.75}, {"label": "b", "score": 0.25}]}]
    one = read("classification", {"inputs": "x", "parameters": {"top_k": 2, "function_to_apply": None}})
    assert one.requests[0].parameters == {"top_k": 2}
    written = wire.write("classification", one, found)
    assert [(e.label, e.score) for e in TextClassificationOutputElement.parse_obj_as_list(written)[0]] == [
        ("a", 0.75),
        ("b", 0.25),
    ]
    two = read("classification", {"inputs": ["x", "y"]})
    assert wire.write("classification", two, found * 2) == written * 2


def test_details_are_written_when_asked_for() -> None:
    answer = {"generated_text": "x", "finish_reason": "length", "prompt_tokens": 2, "tokens": 3}
    assert wire.write("causal_lm", read("causal_lm", {"inputs": "a"}), [answer]) == [{"generated_text": "x"}]
    asked = read("causal_lm", {"inputs": "a", "parameters": {"details": True, "seed": 4}})
    [written] = wire.write("causal_lm", asked, [answer])
    assert written["details"]["finish_reason"] == "length"
    assert (written["details"]["generated_tokens"], written["details"]["seed"]) == (3, 4)


def test_a_bad_text_in_a_list_is_named_by_its_place() -> None:
    call = read("translation", {"inputs": ["a", "b"]})
    with pytest.raises(RequestError, match=r"inputs\[1\]: parameters.beams is too large"):
        wire.write("translation", call, [{"translation_text": "x"}, RequestError("parameters.beams is too large")])


def test_an_error_can_always_be_sent() -> None:
    assert failure("odd \ud800", 422)["error"] == "odd ?"
    assert failure("x" * 5000, 422)["error"] == "x" * 1000 + " …"


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_errors_say_what_kind_they_are(status: int) -> None:
    assert failure("no", status) == {"error": "no", "error_type": "validation"}
    assert failure("no", 503)["error_type"] == "overloaded"
    assert failure("no", 500)["error_type"] == "generation"
    assert failure("no", 401) == {"error": "no"}


@pytest.mark.parametrize("task", list(ROUTES))
def test_the_examples_of_the_documentation_are_read(task: str) -> None:
    assert read(task, openapi.EXAMPLES[task][1]).requests
