"""What is cut out of a text is told after its sentinel; both together are the text again."""

from typing import Any

import numpy as np
import pytest
import torch

from llmray.corpus import shapes
from llmray.corpus.record import Document
from llmray.corpus.tokenizer import train
from llmray.job.errors import JobError, RequestError
from llmray.job.schema import Model
from llmray.job.task import SpanCorruption
from llmray.model.load import build
from llmray.tasks import TASKS, make
from llmray.tasks.base import Processor, Request
from llmray.tasks.span_corruption import _marked, noise, spans

TEXTS = [d.text for d in shapes.records(Document, 0, "train", 0, 60)]


@pytest.fixture(scope="module")
def processor() -> Processor:
    return Processor(train(TEXTS, 500, extra=TASKS["span_corruption"].special_tokens))


def made(processor: Processor, **options: Any) -> Any:
    return make(SpanCorruption(**options), processor)


def test_the_papers_example() -> None:
    """Thank you for inviting me to your party last week (https://arxiv.org/abs/1910.10683, figure 2)."""
    words = ["Thank", "you", "for", "inviting", "me", "to", "your", "party", "last", "week"]
    cut = np.array([word in ("for", "inviting", "last") for word in words])
    ids, names = np.arange(10), {100: "<X>", 101: "<Y>", 102: "<Z>"} | dict(enumerate(words))
    source, target = (" ".join(names[i] for i in _marked(ids, hidden, [100, 101, 102])) for hidden in (cut, ~cut))
    assert source == "Thank you <X> me to your party <Y> week"
    assert target == "<X> for inviting <Y> last <Z>"


@pytest.mark.parametrize(
    ("length", "expected"), [(512, (77, 26)), (128, (19, 6)), (10, (2, 1)), (2, (1, 1)), (1, (0, 0))]
)
def test_how_much_is_cut_out(length: int, expected: tuple[int, int]) -> None:
    assert noise(length, SpanCorruption()) == expected
    hidden = spans(np.random.default_rng(0), length, *expected)
    begins = hidden & ~np.concatenate([[False], hidden[:-1]])
    assert (len(hidden), hidden.sum(), begins.sum()) == (length, *expected)
    assert not hidden[0]


def test_source_and_target_together_are_the_block(processor: Processor) -> None:
    task = made(processor, seq_len=64, noise_density=0.3, mean_span_tokens=2)
    blocks = task.encode({"text": TEXTS})["input_ids"]
    batch = task.collate({"input_ids": blocks})
    sentinels = set(task.sentinels)
    for block, source, target in zip(blocks, batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True):
        told: dict[int, list[int]] = {}
        for i in target[: target.index(-100)] if -100 in target else target:
            if i in sentinels:
                told[i] = []
            else:
                told[list(told)[-1]].append(i)
        assert told[list(told)[-1]].pop() == task.end
        source = [i for i in source if i != processor.tokenizer.pad_token_id]
        assert source.pop() == task.end
        assert [j for i in source for j in told.get(i, [i])] == block.tolist()
    assert torch.equal(task.collate({"input_ids": blocks})["labels"], batch["labels"])
    hidden = sum(len(row) for row in blocks) - int(
        (~torch.isin(batch["input_ids"], torch.tensor([*sentinels, 0]))).sum()
    )
    assert hidden + len(blocks) == pytest.approx(0.3 * sum(map(len, blocks)), rel=0.02)


def test_a_tokenizer_must_have_enough_sentinels(processor: Processor) -> None:
    with pytest.raises(JobError, match="lose 6 spans, but the tokenizer has 0 tokens <extra_id_0>"):
        made(Processor(train(TEXTS, 400)))
    with pytest.raises(JobError, match=r"has 100 tokens .* a smaller task.seq_len"):
        made(processor, seq_len=4096)


def test_sentinels_are_single_tokens_without_text(processor: Processor) -> None:
    tokenizer = processor.tokenizer
    ids = tokenizer("a<extra_id_0> b<extra_id_99>", add_special_tokens=False)["input_ids"]
    assert set(tokenizer.convert_tokens_to_ids(["<extra_id_0>", "<extra_id_99>"])) <= set(ids)
    assert tokenizer.decode(ids, skip_special_tokens=True) == "a b"


def test_gaps_are_filled(processor: Processor) -> None:
    task = made(processor)
    told = processor.tokenizer("<extra_id_0> red<extra_id_1> star</s>", add_special_tokens=False)["input_ids"]
    whole = task._whole("A<extra_id_0> circle, a<extra_id_1>.<extra_id_2>", [processor.tokenizer.pad_token_id, *told])
    assert whole == "A red circle, a star."
    model = build(Model.model_validate({"from": "new:t5-tiny"}), task).eval()
    good = [Request({"text": "A<extra_id_0> circle."}, {"max_new_tokens": 5}), Request({"text": "no gap"}, {})]
    first, bad = task.answer(model, good)
    assert first["generated_text"].startswith("A")
    assert "<extra_id" not in first["generated_text"]
    assert isinstance(bad, RequestError)
    assert "must hold <extra_id_0>" in str(bad)


def test_perplexity_counts_the_targets(processor: Processor) -> None:
    task = made(processor, seq_len=32)
    torch.manual_seed(0)
    model = build(Model.model_validate({"from": "new:t5-tiny"}), task).eval()
    rows = {"text": TEXTS[:8]}
    measured = task.measure(model, rows)
    for text, one in zip(TEXTS, measured, strict=False):
        batch = task.collate(task.encode({"text": [text]}))
        with torch.no_grad():
            loss, count = task.loss(model, batch)
        assert one["tokens"] == int(count)
        assert one["nll"] == pytest.approx(float(loss), rel=1e-4)
    assert task.baseline(rows, rows)["perplexity"] < task.summarise(measured)["perplexity"]
