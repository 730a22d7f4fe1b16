"""Only what the assistant says is learned, token by token; a conversation reads in training as when it is answered."""

from typing import Any

import pytest
import torch

from llmray.corpus import shapes
from llmray.corpus.record import Conversation
from llmray.corpus.tokenizer import train
from llmray.job.errors import DataError, JobError, RequestError
from llmray.job.schema import Model
from llmray.job.task import Chat
from llmray.model.load import build, processor, save
from llmray.model.predict import Predictor
from llmray.tasks import make
from llmray.tasks.base import Processor, Request

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What colour is the star?"},
    {"role": "assistant", "content": "Red."},
    {"role": "user", "content": "And the circle?"},
    {"role": "assistant", "content": "It is\nblue."},
]
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
THOUGHTS = CHATML.replace(
    "m['content']", "('<think>no</think>' if loop.last and m['role'] == 'assistant' else '') + m['content']"
)
STRICT = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate user/assistant') }}{% endif %}{{ m['content'] + eos_token }}{% endfor %}"
)


def made(template: str | None = None, extra: tuple[str, ...] = (), **options: Any) -> Any:
    texts = [m["content"] for one in shapes.records(Conversation, 0, "train", 0, 40) for m in one.messages]
    tokenizer = train(texts, 400, extra=extra)
    tokenizer.chat_template = template
    return make(Chat(**options), Processor(tokenizer))


def said(task: Any, messages: Any = TALK) -> str:
    told = task.tell(messages)
    return str(task.processor.tokenizer.decode([i for i, one in zip(told.ids, told.said, strict=True) if one]))


def test_the_plain_template_by_eye() -> None:
    task = made()
    assert task.render(TALK) == (
        "<s>System:\nBe brief.\nUser:\nWhat colour is the star?\nAssistant:\nRed.</s>"
        "User:\nAnd the circle?\nAssistant:\nIt is\nblue.</s>"
    )
    assert said(task) == "Red.</s>It is\nblue.</s>"


def test_labels_are_the_answers_tokens_and_their_ends() -> None:
    task = made()
    tokenizer = task.processor.tokenizer
    batch = task.collate(task.encode({"messages": [TALK, TALK[:3]]}))
    learned = [row[row != -100].tolist() for row in batch["labels"]]
    first, second = (
        tokenizer(text + "</s>", add_special_tokens=False)["input_ids"] for text in ("Red.", "It is\nblue.")
    )
    assert learned == [first + second, first]
    kept = batch["labels"] != -100
    assert torch.equal(batch["labels"][kept], batch["input_ids"][kept])


def test_a_prompt_is_what_training_has_before_the_answer() -> None:
    task = made()
    model = build(Model.model_validate({"from": "new:gpt2-tiny"}), task).eval()
    told = task.tell(TALK)
    for at, first in ((2, told.said.index(1)), (4, len(told.said) - told.said[::-1].index(0))):
        _, ids = task.prepare(model, Request({"messages": TALK[:at]}, {}))
        assert ids == told.ids[:first]


def test_a_template_of_the_models_own_is_kept() -> None:
    task = made(CHATML, ("<|im_start|>", "<|im_end|>"))
    assert said(task) == "Red.<|im_end|>\nIt is\nblue.<|im_end|>\n"
    assert task.processor.tokenizer.convert_ids_to_tokens(task.end) == "<|im_end|>"
    assert made().end == made().processor.tokenizer.eos_token_id


def test_what_reads_otherwise_later_is_not_learned() -> None:
    """A template that tells thoughts of the last answer only: the earlier answer is never said as it stands there."""
    task = made(THOUGHTS)
    assert said(task) == "<think>no</think>It is\nblue.<|im_end|>\n"
    assert said(task, TALK[:3]) == "<think>no</think>Red.<|im_end|>\n"


def test_templates_that_do_not_fit() -> None:
    task = made(STRICT)
    with pytest.raises(DataError, match=r"a conversation \(system, user, assistant, user, assistant\) does not fit"):
        task.encode({"messages": [TALK]})
    model = build(Model.model_validate({"from": "new:gpt2-tiny"}), task).eval()
    [error] = task.answer(model, [Request({"messages": TALK[:2]}, {})])
    assert isinstance(error, RequestError)
    assert "roles must alternate" in str(error)
    with pytest.raises(JobError, match="its chat template does not begin answers as its generation prompt does"):
        made("{{ 'Ask' if add_generation_prompt else 'Told' }}")


def test_what_is_too_long_is_cut_and_counted() -> None:
    task = made(max_length=32)
    long = [{"role": "user", "content": "star " * 40}, *TALK[2:3]]
    features = task.encode({"messages": [TALK[1:3], long, [*TALK[1:3], *long]]})
    assert [len(ids) for ids in features["input_ids"]] == [len(task.tell(TALK[1:3]).ids), 32]
    model = build(Model.model_validate({"from": "new:gpt2-tiny"}), task).eval()
    rows = {"messages": [TALK[1:3], long, [*TALK[1:3], *long], TALK[1:2]]}
    measured = task.measure(model, rows)
    assert [m["cut"] for m in measured] == [False, True, True, False]
    assert [m["tokens"] > 0 for m in measured] == [True, False, True, False]
    assert task.summarise(measured)["cut"] == 50
    assert task.baseline(rows, rows)["cut"] == 50


@pytest.mark.parametrize("chunked", [False, True])
def test_measured_losses_are_those_of_training(chunked: bool) -> None:
    task = made()
    task.chunked_loss = chunked
    torch.manual_seed(0)
    model = build(Model.model_validate({"from": "new:llama-tiny"}), task).eval()
    rows = {"messages": [TALK, TALK[1:3]]}
    with torch.no_grad():
        loss, count = task.loss(model, task.collate(task.encode(rows)))
    measured = task.measure(model, rows)
    assert sum(m["tokens"] for m in measured) == int(count)
    assert sum(m["nll"] for m in measured) == pytest.approx(float(loss), rel=1e-4)


def test_the_last_answer_is_compared_when_asked_for() -> None:
    task = made(exact_match=True)
    model = build(Model.model_validate({"from": "new:gpt2-tiny"}), task).eval()
    [one, none] = task.measure(model, {"messages": [TALK, TALK[1:2]]})
    assert one["reference"] == "It is\nblue."
    [own] = task.answer(model, [Request({"messages": TALK[:4]}, {})])
    assert one["answer"] == own["generated_text"].strip()
    assert "exact_match" not in none
    rows = {"messages": [TALK[1:3]] * 3 + [TALK]}
    assert task.baseline(rows, rows)["exact_match"] == 75


def test_the_template_is_saved_with_the_model_and_streams(tmp_path: Any) -> None:
    task = made()
    model = build(Model.model_validate({"from": "new:gpt2-tiny"}), task).eval()
    save(model, task, str(tmp_path / "model"))
    again = processor(Model.model_validate({"from": str(tmp_path / "model")})).tokenizer
    assert again.apply_chat_template(TALK, tokenize=False) == task.render(TALK)
    predictor = Predictor.load(str(tmp_path / "model"), device="cpu")
    request = Request({"messages": TALK[:4]}, {"max_new_tokens": 12})
    [whole] = predictor.predict([request])
    assert "".join(predictor.stream(request)) == whole["generated_text"]
    [bad] = predictor.predict([Request({"messages": "hello"}, {})])
    assert "inputs.messages: is str; chat needs list" in str(bad)
