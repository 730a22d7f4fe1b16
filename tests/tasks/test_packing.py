"""With `packing: documents` a model reads each document of a block as if it were alone."""

from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from llmray.corpus.tokenizer import train
from llmray.job.schema import Model
from llmray.job.task import CausalLM, MaskedLM
from llmray.model.load import build
from llmray.tasks import make
from llmray.tasks.base import Processor
from llmray.tasks.language import numbered
from llmray.training.loop import tokens

TEXTS = ["a red star", "b", "two blue circles are above one square", "it is so", "green"]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train(TEXTS, 300)


def test_documents_are_numbered_and_padding_is_none_of_them() -> None:
    assert numbered([[2, 1], [1]], 8).tolist() == [[0, 0, 1] + [-1] * 5, [0] + [-1] * 7]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("preset", ["gpt2", "llama", "bert", "roberta", "modernbert"])
def test_the_loss_is_that_of_documents_alone(
    preset: str, attention: str, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind: Any = CausalLM if preset in ("gpt2", "llama") else MaskedLM
    task = make(kind(seq_len=64, packing="documents"), Processor(tokenizer))
    torch.manual_seed(0)
    model = build(Model(from_=f"new:{preset}-tiny"), task).eval()
    model.set_attn_implementation(attention)
    together, alone = task.encode({"text": TEXTS}), [task.encode({"text": [text]}) for text in TEXTS]
    assert len(together["input_ids"]) < len(TEXTS)
    batches = [task.collate(features) for features in (together, *alone)]
    if kind is MaskedLM:  # what is hidden follows from the block: here every last but one token, unmasked
        for batch, features in zip(batches, (together, *alone), strict=True):
            batch["labels"].fill_(-100)
            for row, lengths in enumerate(features["lengths"]):
                for end in torch.as_tensor(lengths).cumsum(0).tolist():
                    batch["labels"][row, end - 1] = features["input_ids"][row][end - 1]
            for row, ids in enumerate(features["input_ids"]):
                batch["input_ids"][row, : len(ids)] = torch.as_tensor(ids)
    (loss, count), *parts = [task.loss(model, batch) for batch in batches]
    assert int(count) == sum(int(part) for _, part in parts)
    torch.testing.assert_close(loss, torch.stack([part for part, _ in parts]).sum(), rtol=1e-4, atol=1e-4)
    assert tokens(batches[0]) == sum(tokens(batch) for batch in batches[1:])
