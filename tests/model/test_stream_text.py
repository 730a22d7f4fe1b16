"""Streamed pieces are whole characters, add up to the whole answer, stop where it stops, and end with their reader."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from llmray.job.errors import ModelError, RequestError
from llmray.model.generate import Pieces, Stream, until_stop
from llmray.model.predict import Predictor
from llmray.tasks.base import Answer, Request

SPEECH = "Größe: 🔴🔵 — 东京 ist\n\tein ' Wort ,  naïve👩‍👩‍👧 Ende"


def asked(**parameters: Any) -> Request:
    return Request({"text": "A large"}, parameters)


@pytest.fixture(params=["gpt2", "llama"])
def writer(request: pytest.FixtureRequest, saved: Any) -> Predictor:
    return Predictor.load(saved("causal_lm", request.param), device="cpu")


def generating() -> int:
    return sum(thread.name == "generate" for thread in threading.enumerate())


def told(tokenizer: Any, ids: list[int]) -> list[str]:
    pieces = Pieces(tokenizer)
    pieces.put(torch.tensor([[5, 6, 7]]))  # the prompt
    for token in ids:
        pieces.put(torch.tensor([token]))
    pieces.end()
    return list(pieces)


def test_pieces_are_whole_characters_as_they_come(tokenizer_folder: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    ids = tokenizer(SPEECH, add_special_tokens=False)["input_ids"]
    pieces = told(tokenizer, ids)
    assert "".join(pieces) == SPEECH
    assert not any("�" in piece for piece in pieces)
    assert "🔴" in pieces
    assert len(pieces) > len(SPEECH) / 3


def test_bytes_that_make_no_character_are_told_as_the_whole_answer_tells_them(tokenizer_folder: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    red = tokenizer("🔴", add_special_tokens=False)["input_ids"]
    for ids in (red[:-1], red[:2] + red, red[1:], [*red[:1], *tokenizer("a b", add_special_tokens=False)["input_ids"]]):
        assert "".join(told(tokenizer, ids)) == tokenizer.decode(ids, skip_special_tokens=True)


def test_special_tokens_are_not_told(tokenizer_folder: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    ids = tokenizer("A red circle.")["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert "".join(told(tokenizer, ids)) == "A red circle."


@pytest.mark.parametrize(
    ("pieces", "stops", "expected"),
    [
        (["ab", "cd"], [], ["ab", "cd"]),
        (["ab", "cd"], ["c"], ["ab", "c"]),
        (["ab", "cd", "ef"], ["bcd"], ["a", "bcd"]),
        (["ab", "cx", "ef"], ["bcd"], ["a", "bcx", "ef"]),
        (["ab", "c"], ["bcd"], ["a", "bc"]),
        (["abcdef"], ["ef", "b"], ["ab"]),
        (["a", "\n", "\n", "b"], ["\n\n"], ["a", "\n\n"]),
        ([], ["x"], []),
    ],
)
def test_text_ends_with_the_first_stop_string(pieces: list[str], stops: list[str], expected: list[str]) -> None:
    assert list(until_stop(pieces, stops)) == expected


def heard(pieces: Stream) -> tuple[str, Answer]:
    """The text of a stream, and the rest of its answer."""
    text = ""
    while True:
        try:
            text += next(pieces)
        except StopIteration as end:
            return text, end.value


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"return_full_text": True},
        {"do_sample": True, "temperature": 1.5, "seed": 7},
        {"do_sample": True, "top_k": 5, "top_p": 0.9, "repetition_penalty": 1.3, "seed": 1},
    ],
)
def test_pieces_add_up_to_the_whole_answer(parameters: dict[str, Any], writer: Predictor) -> None:
    request = asked(max_new_tokens=40, **parameters)
    [whole] = writer.predict([request])
    assert len(list(writer.stream(request))) > 1
    text, rest = heard(writer.stream(request))
    assert {"generated_text": text} | rest == whole


def test_a_stop_string_ends_stream_and_answer_alike(writer: Predictor) -> None:
    [whole] = writer.predict([asked(max_new_tokens=40, do_sample=True, seed=3)])
    text = whole["generated_text"]
    for stop in (text[10], text[10:12], text[5:15]):
        request = asked(max_new_tokens=40, do_sample=True, seed=3, stop=["never", stop])
        [stopped] = writer.predict([request])
        assert stopped["generated_text"] == text[: text.index(stop) + len(stop)]
        assert stopped["finish_reason"] == "stop_sequence"
        text_told, rest = heard(writer.stream(request))
        assert {"generated_text": text_told} | rest == stopped


def test_many_streams_at_once_do_not_disturb_one_another(writer: Predictor) -> None:
    requests = [asked(max_new_tokens=20, do_sample=True, seed=seed) for seed in range(4)] + [asked(max_new_tokens=20)]
    expected = [answer["generated_text"] for answer in writer.predict(requests)]
    with ThreadPoolExecutor(len(requests)) as pool:
        assert list(pool.map(lambda request: "".join(writer.stream(request)), requests)) == expected


@pytest.mark.parametrize("parameters", [{}, {"do_sample": True, "seed": 0}])
def test_generation_ends_soon_after_its_reader_has_gone(parameters: dict[str, Any], fresh: Any) -> None:
    task, model = fresh("causal_lm", "gpt2-tiny", seq_len=2048)
    steps: list[int] = []
    model.register_forward_hook(lambda *_: steps.append(1))
    predictor = Predictor(task, model)
    pieces = predictor.stream(asked(max_new_tokens=2000, **parameters))
    next(iter(pieces))
    pieces.close()
    assert len(steps) < 1000
    assert generating() == 0
    assert "candidates" not in predictor.predict([asked(max_new_tokens=1, do_sample=True)])[0]


def test_a_reader_who_leaves_while_waiting_for_its_turn_is_let_go(writer: Predictor) -> None:
    left = threading.Event()

    def read() -> None:
        for _ in writer.stream(asked(do_sample=True, return_full_text=True)):
            break
        left.set()

    with writer.lock:
        threading.Thread(target=read, daemon=True).start()
        assert left.wait(10)
    assert generating() == 0


def test_a_wrong_request_is_refused_before_the_first_piece(writer: Predictor) -> None:
    for request, words in (
        (asked(temperature=-1), "parameters.temperature"),
        (asked(num_beams=2), "parameters.num_beams: 2; a stream has one beam"),
        (Request({"text": "a " * 3000}, {}), "this model reads at most"),
        (Request({"text": 5}, {}), "inputs.text: is int"),
    ):
        with pytest.raises(RequestError, match=words):
            writer.stream(request)
    assert generating() == 0


def test_only_text_streams(saved: Any) -> None:
    with pytest.raises(RequestError, match="qa answers whole; only causal_lm and chat stream"):
        Predictor.load(saved("qa", "bert"), device="cpu").stream(Request({"question": "Q?", "context": "C."}, {}))


def test_a_failure_reaches_the_reader(fresh: Any) -> None:
    task, model = fresh("causal_lm", "gpt2-tiny")

    def fail(*_: Any) -> None:
        raise RuntimeError("out of everything")

    model.register_forward_hook(fail)
    with pytest.raises(ModelError, match="generation failed: RuntimeError: out of everything"):
        list(Predictor(task, model).stream(asked()))
