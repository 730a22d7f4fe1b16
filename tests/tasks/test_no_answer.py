"""Questions without an answer (SQuAD 2.0): learned at the first token, told by a threshold, scored as there."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from llmray.job.task import QuestionAnswering
from llmray.tasks import make
from llmray.tasks.base import Processor, Request
from llmray.tasks.metrics import exact_match, token_f1

CONTEXT = "A large red star."


class Fixed(torch.nn.Module):
    """Says 3.0 for the first and last token of one place, `none` for the first special token, 0 elsewhere."""

    device = torch.device("cpu")

    def __init__(self, place: int, none: float) -> None:
        super().__init__()
        self.place, self.none = place, none

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        logits = torch.zeros(input_ids.shape)
        logits[:, self.place], logits[:, 0] = 3.0, self.none
        return SimpleNamespace(start_logits=logits, end_logits=logits.clone())


def answer(tokenizer: Any, none: float, top_k: int = 1, **options: Any) -> list[dict[str, Any]]:
    task = make(QuestionAnswering(**options), Processor(tokenizer))
    out = tokenizer("What?", CONTEXT, return_offsets_mapping=True)
    place = next(i for i, (a, _) in enumerate(out["offset_mapping"]) if CONTEXT[a:].startswith("red") and i > 3)
    request = Request({"question": "What?", "context": CONTEXT}, {"top_k": top_k})
    [found] = task.answer(Fixed(place, none), [request])  # type: ignore[arg-type]
    return list(found["candidates"])


def test_none_is_told_when_it_is_likelier_by_the_threshold(tokenizer: Any) -> None:
    """The span's logits add up to 6, none's to 2 × 4 = 8: the log-odds of none are 2."""
    assert answer(tokenizer, 4.0)[0]["answer"].startswith("r")
    [none] = answer(tokenizer, 4.0, no_answer=True)
    assert (none["answer"], none["start"], none["end"]) == ("", 0, 0)
    assert answer(tokenizer, 4.0, no_answer=True, null_threshold=1.9)[0]["answer"] == ""
    assert answer(tokenizer, 4.0, no_answer=True, null_threshold=2.1)[0]["answer"] != ""
    assert answer(tokenizer, 2.0, no_answer=True)[0]["answer"] != ""
    assert answer(tokenizer, 2.0, no_answer=True, null_threshold=-2.1)[0]["answer"] == ""


def test_scores_are_probabilities_with_none_among_the_possibilities(tokenizer: Any) -> None:
    places = len(tokenizer(CONTEXT, add_special_tokens=False)["input_ids"])
    first, second = answer(tokenizer, 4.0, top_k=2, no_answer=True)
    whole = math.exp(4) + math.exp(3) + places - 1
    assert first["score"] == pytest.approx((math.exp(4) / whole) ** 2)
    assert second["score"] == pytest.approx((math.exp(3) / whole) ** 2)
    assert first["answer"] == ""


def test_questions_without_an_answer_are_learned_at_the_first_token(tokenizer: Any) -> None:
    task = make(QuestionAnswering(no_answer=True), Processor(tokenizer))
    rows = {"question": ["What?"] * 2, "context": [CONTEXT] * 2, "answers": [[], [{"text": "red", "start": 8}]]}
    features = task.encode(rows)
    assert (features["start"][0], features["end"][0]) == (0, 0)
    assert features["start"][1] > 0
    assert task.collate(features)["labels"][0].tolist() == [0, 0]


def test_scores_by_hand(tokenizer: Any) -> None:
    """As evaluate-v2.0.py of https://rajpurkar.github.io/SQuAD-explorer counts."""
    assert (exact_match("", []), token_f1("", []), exact_match("red", []), token_f1("red", [])) == (1, 1, 0, 0)
    task = make(QuestionAnswering(no_answer=True), Processor(tokenizer))
    gold: list[list[dict[str, Any]]] = [[{"text": "red star", "start": 8}], [{"text": "red", "start": 8}], [], []]
    rows = {"question": ["Q"] * 4, "context": [CONTEXT] * 4, "answers": gold}
    scores = task.summarise(task._judge(["star", "", "", "red"], rows))
    # star against red star: precision 1, recall 1/2, F1 2/3; none where there is one 0; none 1; one where is none 0
    assert scores == pytest.approx(
        {"exact_match": 25, "f1": 100 * (2 / 3 + 1) / 4, "HasAns_exact_match": 0, "HasAns_f1": 100 / 3,
         "NoAns_exact_match": 50, "NoAns_f1": 50}
    )  # fmt: skip
    mostly_none = {"context": [CONTEXT] * 3, "answers": [[], [], gold[0]]}
    assert task.baseline(mostly_none, rows)["NoAns_f1"] == 100
    assert task.baseline(mostly_none, rows)["HasAns_f1"] == 0
