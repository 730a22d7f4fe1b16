"""What language models share: documents as ids, blocks of them, and attention that stays inside a document.

It does not know which of a block's tokens are predicted.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import torch
from torch.nn.functional import cross_entropy

from llmray.corpus.encode import Encode, Ids, encoder_of
from llmray.corpus.pack import pack, pack_best_fit
from llmray.corpus.record import Columns, Document, Record
from llmray.tasks.base import Task, Tensors
from llmray.tasks.tensors import padded

if TYPE_CHECKING:  # workers that only read need no model's code, whose import takes seconds
    from transformers import PreTrainedModel

Scores: TypeAlias = Iterable[tuple[float, ...]]
"""The numbers of each block."""

SCORED_TOKENS = 1 << 12
"""Tokens that are scored at once: their logits over a vocabulary of 50,000 take 0.8 GB."""


class LanguageModel(Task):
    """A task over documents, which `options.packing` puts into blocks of `options.seq_len`, each closed by `end`."""

    record: ClassVar[type[Record]] = Document

    @property
    @abstractmethod
    def end(self) -> int:
        """The token that closes a document."""

    def encode(self, rows: Columns) -> Columns:
        """Blocks; with `packing: documents` also the lengths of the documents in each."""
        ids = self.ids(rows["text"])
        if self.options.packing == "documents":
            return pack_best_fit(ids, self.options.seq_len, self.end)
        return {"input_ids": pack(ids, self.options.seq_len, self.end)}

    def ids(self, texts: Sequence[str]) -> list[Ids]:
        """The tokens of each text, bare."""
        return self._encoder(texts)

    @cached_property
    def _encoder(self) -> Encode:
        return encoder_of(self.processor.tokenizer)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_encoder"}


def numbered(lengths: Sequence[Sequence[int]], width: int) -> torch.Tensor:
    """The number of each token's document in its block, (rows, width); -1 for padding."""
    rows = [[number for number, length in enumerate(row) for _ in range(length)] for row in lengths]
    return torch.nn.functional.pad(found := padded(rows, -1), (0, width - found.shape[1]), value=-1)


def summed(
    per_row: Sequence[Sequence[Any]], seq_len: int, score: Callable[[list[Any]], Scores]
) -> list[tuple[float, ...]]:
    """Of each row the sums of what `score` tells of its blocks, of which there is at least one.

    Blocks, of at most `seq_len` tokens, are scored in runs of at most `SCORED_TOKENS`, whatever rows they are of.
    """
    blocks = [block for row in per_row for block in row]
    step = max(1, SCORED_TOKENS // seq_len)
    found = chain.from_iterable(score(blocks[at : at + step]) for at in range(0, len(blocks), step))
    return [tuple(map(sum, zip(*islice(found, len(row)), strict=True))) for row in per_row]


def target_nll(logits: torch.Tensor, labels: torch.Tensor) -> list[float]:
    """Negative log-likelihood (nats) of each row's targets, summed; logits (rows, width, classes)."""
    nll = cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="none")
    return list(nll.view(labels.shape).sum(1).tolist())


def inputs(model: torch.nn.Module, batch: Tensors, causal: bool) -> Tensors:
    """What the model is called with: `documents`, where a batch has them, turned into positions and a mask."""
    if "documents" not in batch:
        return batch
    inner: Any = getattr(model, "module", model)  # inside DistributedDataParallel
    rest = {name: tensor for name, tensor in batch.items() if name != "documents"}
    return rest | inside_documents(inner, batch["documents"], causal)


def inside_documents(model: PreTrainedModel, documents: torch.Tensor, causal: bool) -> Tensors:
    """`position_ids` that begin anew with each document, and a mask that lets a token see only its own.

    `documents` are as `numbered` gives them.  The mask, (rows, 1, width, width), is true where torch's fused attention
    may look, and added to the scores elsewhere.
    """
    _, width = documents.shape
    places = torch.arange(width, device=documents.device)
    begins = torch.nn.functional.pad(documents[:, 1:] != documents[:, :-1], (1, 0), value=True)
    starts = torch.where(begins, places, 0).cummax(1).values
    seen = documents[:, :, None] == documents[:, None, :]
    if causal:
        seen &= places[:, None] >= places
    seen = seen[:, None]
    if "sdpa" not in model.config._attn_implementation:
        seen = torch.zeros(seen.shape, device=seen.device).masked_fill(~seen, torch.finfo(torch.float32).min)
    return {"position_ids": places - starts + first_position(model), "attention_mask": seen}


def first_position(model: PreTrainedModel) -> int:
    """RoBERTa counts positions from the one after its padding's."""
    return int(model.config.pad_token_id) + 1 if model.config.model_type == "roberta" else 0
