"""Tiny random models, one a task, and the tokenizer that they share."""

import pytest
import torch

from llmray.corpus import shapes
from llmray.corpus.record import Document, Pair
from llmray.corpus.tokenizer import train
from llmray.job.load import load
from llmray.job.schema import Model
from llmray.model import presets
from llmray.model.load import build
from llmray.tasks import make
from llmray.tasks.base import Processor

PRESET = {
    "causal_lm": "gpt2-tiny",
    "classification": "bert-tiny",
    "chat": "llama-tiny",
    "masked_lm": "bert-tiny",
    "qa": "bert-tiny",
    "translation": "marian-tiny",
    "captioning": "vit-gpt2-tiny",
}


@pytest.fixture(scope="session")
def tokenizer():
    texts = [d.text for d in shapes.records(Document, 0, "train", 0, 300)]
    return train(texts + [p.target for p in shapes.records(Pair, 0, "train", 0, 300)], 500)


@pytest.fixture(scope="session")
def asked(tokenizer):
    """`asked(name, preset, **options)` → a task and a random model for it."""

    def make_one(name: str, preset: str | None = None, **options):
        preset = preset or PRESET[name]
        pictures = presets.image_processor(preset) if name == "captioning" else None
        job = load({"task": {"name": name} | options, "model": {"from": f"new:{preset}"}})
        task = make(job.task, Processor(tokenizer, pictures))
        torch.manual_seed(0)
        return task, build(Model.model_validate({"from": f"new:{preset}"}), task).eval()

    return make_one
