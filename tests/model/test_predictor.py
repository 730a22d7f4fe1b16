"""The Predictor answers the same alone, in batches of any size and from many threads; a bad request stays alone."""

import io
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from llmray.job.errors import RequestError, StoreError
from llmray.model.load import save
from llmray.model.predict import MOST, Predictor
from llmray.model.registry import register
from llmray.tasks.base import Request
from llmray.tasks.qa import ExtractiveQA


def picture(colour: str = "red") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(file, "PNG")
    return file.getvalue()


GOOD: dict[tuple[str, str], dict[str, Any]] = {
    ("causal_lm", "gpt2"): {"text": "A red"},
    ("causal_lm", "llama"): {"text": "A red"},
    ("masked_lm", "bert"): {"text": "A <mask> circle"},
    ("masked_lm", "roberta"): {"text": "A <mask> circle"},
    ("masked_lm", "modernbert"): {"text": "A <mask> circle"},
    ("span_corruption", "t5"): {"text": "A<extra_id_0> circle"},
    ("classification", "bert"): {"text": "A red circle"},
    ("classification", "roberta"): {"text": "A red circle"},
    ("classification", "modernbert"): {"text": "A red circle"},
    ("classification", "gpt2"): {"text": "A red circle"},
    ("classification", "llama"): {"text": "A red circle"},
    ("chat", "gpt2"): {"messages": [{"role": "user", "content": "What is red?"}]},
    ("chat", "llama"): {"messages": [{"role": "user", "content": "What is red?"}]},
    ("qa", "bert"): {"question": "What is red?", "context": "The circle is red."},
    ("qa", "roberta"): {"question": "What is red?", "context": "The circle is red."},
    ("qa", "modernbert"): {"question": "What is red?", "context": "The circle is red."},
    ("translation", "marian"): {"text": "a red circle"},
    ("translation", "t5"): {"text": "a red circle"},
    ("captioning", "vit-gpt2"): {"image": picture()},
}
WRITERS = ("causal_lm", "span_corruption", "translation", "captioning", "chat")


@pytest.fixture(scope="module")
def reader(saved: Any) -> Predictor:
    return Predictor.load(saved("qa", "bert"), device="cpu")


def question(word: str = "red") -> Request:
    return Request({"question": f"What is {word}?", "context": f"The {word} circle is above the blue square."}, {})


@pytest.mark.parametrize(("name", "family"), GOOD)
def test_every_family_answers_from_its_folder_as_before_it_was_saved(
    name: str, family: str, fresh: Any, saved: Any, alike: Any
) -> None:
    task, model = fresh(name, f"{family}-tiny")
    predictor = Predictor.load(saved(name, family), device="cpu")
    parameters = {"max_new_tokens": 5} if name in WRITERS else {}
    request = Request(GOOD[name, family], parameters)
    [answer] = predictor.predict([request])
    kept = predictor.model.state_dict()
    assert all(torch.equal(kept[key], weight) for key, weight in model.state_dict().items())
    assert alike(answer, Predictor(task, model).predict([request])[0])
    assert not isinstance(answer, RequestError)
    assert not predictor.model.training
    assert not any(p.requires_grad and p.grad is not None for p in predictor.model.parameters())


def test_batches_of_any_size(reader: Predictor, alike: Any) -> None:
    assert reader.predict([]) == []
    many = [question(f"{'very ' * (i % 7)}red") for i in range(2 * MOST + 3)]
    together = reader.predict(many)
    assert len(together) == len(many)
    for i in (0, 1, MOST - 1, MOST, 2 * MOST + 2):
        assert alike(together[i], reader.predict([many[i]])[0])


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({}, "inputs.question: is missing; qa needs str"),
        ({"question": 3, "context": "C."}, "inputs.question: is int; qa needs str"),
        ({"question": "Q?", "context": None}, "inputs.context: is missing"),
        ({"question": "Q?", "context": "\ud800"}, "inputs.context: is not valid Unicode"),
        ({"question": " ", "context": "C."}, "inputs.question: is empty"),
    ],
)
def test_a_bad_request_gets_its_error_in_its_own_place(inputs: dict[str, Any], words: str, reader: Predictor) -> None:
    first, bad, last = reader.predict([question(), Request(inputs, {}), question("blue")])
    assert isinstance(bad, RequestError)
    assert bad.status == 422
    assert words in str(bad)
    assert "candidates" in first
    assert "candidates" in last


class Fragile(ExtractiveQA):
    """A task that breaks, as a bug would, on one question."""

    def answer(self, model: Any, requests: Any) -> Any:
        if any("seven" in request.inputs["question"] for request in requests):
            raise ZeroDivisionError("by seven")
        return super().answer(model, requests)


def test_a_request_that_breaks_the_model_breaks_only_itself(fresh: Any) -> None:
    task, model = fresh("qa", "bert-tiny")
    predictor = Predictor(Fragile(task.options, task.processor), model)
    outcomes = predictor.predict([question(), question("seven"), question("blue")])
    assert isinstance(outcomes[1], RequestError)
    assert outcomes[1].status == 500
    assert "the model failed on this request: ZeroDivisionError: by seven" in str(outcomes[1])
    assert outcomes[0] == predictor.predict([question()])[0]
    assert "candidates" in outcomes[2]


def test_many_threads_may_ask_at_once(reader: Predictor) -> None:
    asked = [question(word) for word in ("red", "blue", "large", "small")] * 4
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda request: reader.predict([request])[0], asked))
    assert found == [reader.predict([request])[0] for request in asked]


def test_held_out_rows_are_measured_and_none_are_none(reader: Predictor) -> None:
    rows = {
        "id": ["1"], "question": ["What is red?"], "context": ["The circle is red."],
        "answers": [[{"text": "circle", "start": 4}]],
    }  # fmt: skip
    [measured] = reader.measure(rows)
    assert {"exact_match", "f1"} <= set(measured)
    assert reader.measure({}) == []
    assert reader.measure({name: [] for name in rows}) == []


def test_options_are_those_of_training_but_for_what_is_given(fresh: Any, options: Any, tmp_path: Path) -> None:
    task, model = fresh("qa", "bert-tiny", max_length=64, stride=16)
    save(model, task, str(tmp_path / "model"))
    given = Predictor.load(str(tmp_path / "model"), options("qa"), "cpu").task.options
    assert (given.max_length, given.stride) == (64, 16)
    changed = Predictor.load(str(tmp_path / "model"), options("qa", stride=8), "cpu").task.options
    assert (changed.max_length, changed.stride) == (64, 8)


def test_name_and_version_tell_where_it_came_from(saved: Any, tmp_path: Path) -> None:
    shutil.copytree(saved("qa", "bert"), tmp_path / "runs" / "reader" / "model")
    run = Predictor.load(str(tmp_path / "runs" / "reader" / "model"), device="cpu")
    assert (run.name, run.version) == ("reader", "0")
    root = str(tmp_path / "registry")
    for _ in range(2):
        register(root, "asker", saved("qa", "bert"), {})
    registered = Predictor.load("registry:asker@2", device="cpu", registry_root=root)
    assert (registered.name, registered.version) == ("asker", "2")
    with pytest.raises(StoreError, match="no such version"):
        Predictor.load("registry:asker@3", device="cpu", registry_root=root)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("name", "family"), GOOD)
def test_a_gpu_gives_the_cpus_answers(name: str, family: str, saved: Any) -> None:
    parameters = {"max_new_tokens": 5} if name in WRITERS else {}
    request = Request(GOOD[name, family], parameters)
    on_gpu = Predictor.load(saved(name, family))
    assert on_gpu.model.device.type == "cuda"
    [found], [expected] = (
        on_gpu.predict([request]),
        Predictor.load(saved(name, family), device="cpu").predict([request]),
    )
    if "candidates" in expected:
        assert found["candidates"][0]["score"] == pytest.approx(expected["candidates"][0]["score"], rel=1e-3)
    else:
        assert found == expected
    if name == "causal_lm":
        assert "".join(on_gpu.stream(request)) == found["generated_text"]
