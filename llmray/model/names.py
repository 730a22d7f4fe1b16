"""A token-classification model → the names of persons in a text.  It does not know what becomes of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from transformers import AutoConfig, AutoModelForTokenClassification, AutoTokenizer, pipeline

from llmray.corpus.personal import Finding
from llmray.job.errors import ModelError
from llmray.model.hub import reach
from llmray.model.load import Loading, resolve

PERSONS = frozenset({"PER", "PERSON"})
STRIDE = 32
"""Tokens that two parts of a text longer than the model's positions share."""


@dataclass(frozen=True)
class Names:
    """Findings of kind `name`, by a model (hub id, folder) among whose labels is `PER` or `PERSON`, tagged in any way.

    The model is loaded once a process, with the first text.  Raises `ModelError`.
    """

    reference: str

    def require(self) -> None:
        """Raise `ModelError` unless the model tells persons; only its config is read."""
        _judged(self.reference)

    def __call__(self, text: str) -> Iterator[Finding]:
        for found in _loaded(self.reference)(text):
            if found["entity_group"].upper() in PERSONS:
                yield Finding("name", found["start"], found["end"])


def _judged(reference: str) -> str:
    """The folder or hub id of a model that tells persons."""
    folder = resolve(reference)
    with Loading(folder):
        config = AutoConfig.from_pretrained(folder, **reach(folder))
    labels = {label.rpartition("-")[2].upper() for label in config.id2label.values()}
    if not labels & PERSONS:
        raise ModelError(f"{reference}: tells no persons; its labels are {', '.join(sorted(labels))}")
    return folder


@lru_cache(maxsize=1)
def _loaded(reference: str) -> Any:
    folder = _judged(reference)
    access = reach(folder)
    with Loading(folder):
        tokenizer = AutoTokenizer.from_pretrained(folder, **access)
        model = AutoModelForTokenClassification.from_pretrained(folder, use_safetensors=True, **access)
    tokenizer.model_max_length = min(tokenizer.model_max_length, model.config.max_position_embeddings)
    return pipeline(
        "token-classification", model=model, tokenizer=tokenizer, aggregation_strategy="first", stride=STRIDE
    )
