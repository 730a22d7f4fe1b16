"""However much is asked at once, a pass of the model is bounded, and every answer lands where it belongs."""

import pytest

from llmray.tasks import tensors
from llmray.tasks.base import Request


def test_rows_of_like_length_share_a_pass():
    runs = tensors.passes([10, 90, 12, 100, 11, 300], 100)
    assert runs == [[0, 4, 2], [1], [3], [5]]
    assert tensors.passes([9, 9, 9], 47) == [[0, 1], [2]]  # widths are rounded up to 16


@pytest.mark.parametrize("name", ["qa", "classification", "masked_lm"])
def test_many_requests_of_any_length_are_answered_in_bounded_passes(asked, monkeypatch, name):
    task, model = asked(name, **({"max_length": 64, "stride": 16} if name == "qa" else {}))
    seen: list[tuple[int, int]] = []
    model.register_forward_pre_hook(lambda _, __, given: seen.append(given["input_ids"].shape), with_kwargs=True)
    many = [asked_of(name, words) for words in (60, 2, 35, 500, 1, 8, 90, 4) * 4]
    alone = [task.answer(model, [request])[0] for request in many[:8]] * 4
    seen.clear()
    monkeypatch.setitem(tensors.PASS_TOKENS, "cpu", 256)
    together = task.answer(model, many)
    assert len(seen) > 3
    assert all(rows * width <= 256 or rows == 1 for rows, width in seen)
    for one, other in zip(alone, together, strict=True):
        best, same = one["candidates"][0], other["candidates"][0]
        assert best == same | {"score": pytest.approx(same["score"], abs=1e-5)}


def asked_of(name: str, words: int) -> Request:
    text = "a red circle " * words
    inputs = {
        "qa": {"question": "What is red?", "context": text},
        "classification": {"text": text},
        "masked_lm": {"text": f"<mask> {text[: 13 * 8]}"},
    }
    return Request(inputs[name], {})
