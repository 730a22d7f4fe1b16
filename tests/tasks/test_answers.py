"""Each task answers alone as in any batch; a bad request gets its error in its own place."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from llmray.corpus import shapes
from llmray.corpus.record import Picture
from llmray.job.errors import RequestError
from llmray.tasks.base import Request


def png(size=(96, 96), mode="RGB", fmt="PNG", **options) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size).save(file, fmt, **options)
    return file.getvalue()


def one(task, model, inputs, **parameters):
    return task.answer(model, [Request(inputs, parameters)])[0]


SCENE = shapes.draw(shapes.scene(0, "train", 1))
CONTEXT = "Ein 🔴 Kreis liegt links. " * 30 + "Das Ende: 东京 ist groß."
GOOD = {
    "causal_lm": ({"text": "A large red"}, {"text": "There is a small blue circle to the left of"}),
    "masked_lm": ({"text": "A <mask> circle"}, {"text": "The square is small and <mask>."}),
    "classification": ({"text": "A large red star."}, {"text": "東京 " * 300}),
    "chat": (
        {"messages": [{"role": "user", "content": "What colour is the star?"}]},
        {"messages": [{"role": role, "content": "Hm?"} for role in ("system", "user", "assistant", "user")]},
    ),
    "qa": ({"question": "Wo?", "context": CONTEXT}, {"question": "What colour?", "context": "A red star."}),
    "translation": ({"text": "A circle."}, {"text": "A large red star above a small blue square."}),
    "captioning": ({"image": SCENE}, {"image": png()}),
}


@pytest.mark.parametrize("name", GOOD)
def test_alone_or_in_a_batch_and_beside_a_bad_one(asked, name):
    task, model = asked(name)
    good = [Request(inputs, {}) for inputs in GOOD[name]]
    bad = Request(good[0].inputs, {"no_such_thing": 1})
    together = task.answer(model, [good[0], bad, good[1]])
    assert isinstance(together[1], RequestError)
    assert together[1].status == 422
    assert "parameters.no_such_thing: unknown parameter; allowed:" in str(together[1])
    for alone, batched in zip(good, (together[0], together[2]), strict=True):
        assert stripped(task.answer(model, [alone])[0]) == stripped(batched)


def stripped(answer):
    """Scores to five digits; the rest exactly."""
    if isinstance(answer, dict):
        return {k: round(v, 5) if k == "score" else stripped(v) for k, v in answer.items()}
    return [stripped(a) for a in answer] if isinstance(answer, list) else answer


def test_qa_offsets_are_characters_of_the_context(asked):
    task, model = asked("qa", max_length=64, stride=16)
    found = one(task, model, {"question": "Wo?", "context": CONTEXT}, top_k=50)["candidates"]
    assert len(found) == 50
    assert all(c["answer"] == CONTEXT[c["start"] : c["end"]] for c in found)
    assert [c["score"] for c in found] == sorted((c["score"] for c in found), reverse=True)
    assert max(c["end"] for c in found) <= len(CONTEXT)


def test_qa_windows_hold_the_answer_where_it_is(asked):
    task, _ = asked("qa", max_length=64, stride=16)
    start = CONTEXT.index("东京")
    rows = {"question": ["Wo?"], "context": [CONTEXT], "answers": [[{"text": "东京", "start": start}]], "id": ["1"]}
    features = task.encode(rows)
    tokenizer = task.processor.tokenizer
    told = [
        tokenizer.decode(ids[s : e + 1]).strip()
        for ids, s, e in zip(features["input_ids"], features["start"], features["end"], strict=True)
        if s
    ]
    assert len(features["input_ids"]) > 3
    assert told
    assert set(told) == {"东京"}


@pytest.mark.parametrize("field", ["question", "context"])
def test_qa_empty_field_is_named(asked, field):
    task, model = asked("qa")
    error = one(task, model, {"question": "Q?", "context": "C."} | {field: " "})
    assert isinstance(error, RequestError)
    assert f"inputs.{field}: is empty" in str(error)


@pytest.mark.parametrize(
    ("name", "inputs", "parameters", "words"),
    [
        ("causal_lm", {"text": "a " * 2000}, {}, "this model reads at most"),
        ("causal_lm", {"text": "a"}, {"temperature": -1}, "parameters.temperature"),
        ("causal_lm", {"text": "a"}, {"max_new_tokens": "x"}, "parameters.max_new_tokens"),
        ("masked_lm", {"text": "no mask"}, {}, "must hold <mask> exactly once"),
        ("translation", {"text": ""}, {}, "the text is empty"),
        ("translation", {"text": "a circle " * 200}, {}, "this model translates at most"),
        ("classification", {"text": ""}, {}, "the text is empty"),
        ("chat", {"messages": []}, {}, "inputs: must end with a message that the assistant is to answer"),
        ("chat", {"messages": [{"role": "user"}]}, {}, r"inputs[0]: must be an object with role and content"),
        ("chat", {"messages": [{"role": "user", "content": "a " * 2000}]}, {}, "this model reads at most"),
        ("qa", {"question": "why " * 400, "context": "C."}, {}, "inputs.question:"),
        ("qa", {"question": "Q", "context": "C."}, {"top_k": 0}, "parameters.top_k"),
    ],
)
def test_bad_requests_are_named(asked, name, inputs, parameters, words):
    task, model = asked(name)
    error = one(task, model, inputs, **parameters)
    assert isinstance(error, RequestError)
    assert words in str(error)


@pytest.mark.parametrize(
    ("image", "status"),
    [
        (b"", 415),
        (b"no picture", 415),
        (SCENE[:100], 415),
        (b"<svg xmlns='x'/>", 415),
        (png((20_000, 20_000), "1"), 413),
    ],
)
def test_bad_pictures(asked, image, status):
    task, model = asked("captioning")
    error = one(task, model, {"image": image})
    assert isinstance(error, RequestError)
    assert error.status == status


@pytest.mark.parametrize(
    "image", [png((1, 1)), png(mode="CMYK", fmt="JPEG"), png(mode="P", fmt="GIF"), png(mode="RGBA"), png(mode="L")]
)
def test_unusual_pictures_are_read(asked, image):
    task, model = asked("captioning")
    assert "generated_text" in one(task, model, {"image": image})


def test_pictures_become_what_the_image_processor_makes_of_them(asked):
    task, _ = asked("captioning")
    image = next(iter(shapes.records(Picture, 0, "train", 5, 6))).image
    batch = task.collate(task.encode({"image": [image], "captions": [["a", "b"]]}))
    picture = Image.open(io.BytesIO(image)).convert("RGB")
    expected = task.processor.image_processor(picture, return_tensors="pt")["pixel_values"]
    assert batch["pixel_values"].shape[0] == 2
    assert torch.allclose(batch["pixel_values"][:1], expected, atol=1e-5)


def test_generation_is_seeded_and_stops(asked):
    task, model = asked("causal_lm")
    sampled = {"do_sample": True, "temperature": 1.5, "seed": 7, "max_new_tokens": 12}
    first, again = (one(task, model, {"text": "A large"}, **sampled) for _ in range(2))
    assert first == again
    whole = one(task, model, {"text": "A large"}, max_new_tokens=12)
    assert whole["tokens"] <= 12
    middle = whole["generated_text"][len(whole["generated_text"]) // 2]
    stopped = one(task, model, {"text": "A large"}, max_new_tokens=12, stop=[middle])
    assert stopped["generated_text"].endswith(middle)
    assert stopped["finish_reason"] == "stop_sequence"


def test_full_text_brings_the_prompt(asked):
    task, model = asked("causal_lm")
    assert one(task, model, {"text": "A large"}, return_full_text=True)["generated_text"].startswith("A large")


def test_masks_follow_from_seed_and_blocks_alone(asked):
    task, _ = asked("masked_lm", seq_len=32)
    features = task.encode({"text": ["A large red circle is above a small blue square."] * 40})
    first, again = task.collate(features), task.collate(features)
    assert torch.equal(first["labels"], again["labels"])
    share = (first["labels"] != -100).float().mean().item()
    assert 0.05 < share < 0.25
    kept = first["labels"] == -100
    assert torch.equal(first["input_ids"][kept], task.collate(features)["input_ids"][kept])


def test_losses_are_sums_over_targets(asked):
    """Two halves of a batch weigh up to the whole."""
    for name, rows in (
        ("causal_lm", {"text": ["A red circle.", "A small blue square is to the left of a large green star."] * 4}),
        ("translation", {"source": ["A circle.", "A large red star."] * 2, "target": ["Ein Kreis.", "Ein Stern."] * 2}),
    ):
        task, model = asked(name, **({"seq_len": 16} if name == "causal_lm" else {}))
        features = task.encode(rows)
        half = len(features["input_ids"]) // 2
        parts = [{k: v[:half] for k, v in features.items()}, {k: v[half:] for k, v in features.items()}]
        with torch.no_grad():
            whole, count = task.loss(model, task.collate(features))
            summed = [task.loss(model, task.collate(part)) for part in parts]
        assert int(count) == sum(int(c) for _, c in summed)
        np.testing.assert_allclose(float(whole), sum(float(s) for s, _ in summed), rtol=1e-4)


def test_perplexity_is_that_of_the_model(asked):
    """An untrained model is close to uniform: its perplexity is near the vocabulary's size."""
    task, model = asked("causal_lm", seq_len=32)
    held_out = {"text": ["A large red circle is above a small blue square."] * 3}
    metrics = task.summarise(task.measure(model, held_out))
    assert metrics["perplexity"] == pytest.approx(len(task.processor.tokenizer), rel=0.3)
    assert task.baseline(held_out, held_out)["perplexity"] < metrics["perplexity"] / 2


def test_baselines_by_hand(asked):
    qa, _ = asked("qa")
    rows = {"question": ["Q"], "context": ["one two three four"], "answers": [[{"text": "three", "start": 8}]]}
    assert qa.baseline(rows, rows) == {"exact_match": 100.0, "f1": 100.0}
    translation, _ = asked("translation")
    assert translation.baseline({}, {"source": ["a b c d e"], "target": ["a b c d e"]})["bleu"] == pytest.approx(100)
    captioning, _ = asked("captioning")
    told = captioning.baseline({"captions": [["x"], ["a"], ["a"]]}, {"captions": [["a"], ["b"]]})
    assert told["exact_match"] == 50.0
