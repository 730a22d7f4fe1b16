"""What a task is: which records it reads, how they become tensors, how a model's output becomes an answer and a score.

It does not know where records come from, how a model is trained, or who asks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import torch

from llmray.corpus.record import Columns, Record
from llmray.job.errors import RequestError
from llmray.tasks.losses import evenly

if TYPE_CHECKING:  # workers that only read need no model's code, whose import takes seconds
    from transformers import BaseImageProcessor, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

Tensors: TypeAlias = dict[str, torch.Tensor]
Answer: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Processor:
    """What turns a model's raw inputs into numbers: a tokenizer and, for pictures, an image processor."""

    tokenizer: PreTrainedTokenizerBase
    image_processor: BaseImageProcessor | None = None


@dataclass(frozen=True)
class Request:
    """One question to a model. `inputs` are the task's own (see each task); `parameters` change how it is answered."""

    inputs: dict[str, Any]
    parameters: dict[str, Any]


class Task(ABC):
    """One way to ask a model; stateless but for its options and processor, so that it travels to any worker."""

    name: ClassVar[str]
    record: ClassVar[type[Record]]
    auto_class: ClassVar[str]
    """Name of the `transformers` class that loads a model for this task."""
    headline: ClassVar[str]
    """The metric that a table shows first."""
    special_tokens: ClassVar[tuple[str, ...]] = ()
    """What a tokenizer trained for the task must have beside the usual special tokens."""

    def __init__(
        self,
        options: Any,
        processor: Processor,
        seed: int = 0,
        *,
        label_smoothing: float = 0.0,
        chunked_loss: bool | Literal["auto"] = "auto",
    ) -> None:
        """`label_smoothing` and `chunked_loss` are those of the job's `train`."""
        self.options = options
        self.processor = processor
        self.seed = seed
        self.label_smoothing = label_smoothing
        self.chunked_loss = chunked_loss

    def configure(self, config: PreTrainedConfig) -> None:  # noqa: B027 — most tasks decide nothing of it
        """Write into a model's config what the task decides of it, before the model is built."""

    @abstractmethod
    def encode(self, rows: Columns) -> Columns:
        """Turn records (columns of `record`) into features of fixed width, ready for Arrow; rows may multiply."""

    @abstractmethod
    def collate(self, features: Columns) -> Tensors:
        """Stack features into the model's inputs, `labels` included (-100 where nothing is to be learned)."""

    def loss(self, model: torch.nn.Module, batch: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the loss summed over the batch's targets, and how many targets there are (both scalars).

        Summed, so that accumulation passes and workers of unequal size add up to the exact mean.
        """
        count = (batch["labels"] != -100).sum()
        out = model(**batch)
        return self.smoothed(model, out.loss * count, out.logits, batch["labels"]), count

    def smoothed(
        self, model: torch.nn.Module, loss: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        """A summed loss with the job's share of every target spread over all classes, while the model learns."""
        if not (self.label_smoothing and model.training):
            return loss
        return (1 - self.label_smoothing) * loss + self.label_smoothing * evenly(logits, labels)

    @abstractmethod
    def answer(self, model: PreTrainedModel, requests: Sequence[Request]) -> list[Answer | RequestError]:
        """Answer each request; a bad one gets its error in its own place and never disturbs the others.

        `model` may be any engine (`llmray.model.engines`) that offers what the task asks of it.
        """

    @abstractmethod
    def measure(self, model: PreTrainedModel, rows: Columns) -> list[dict[str, Any]]:
        """Ask the model about held-out records; one JSON-ready measurement a record, for `summarise`."""

    @abstractmethod
    def summarise(self, measurements: Sequence[dict[str, Any]]) -> dict[str, float]:
        """Turn the measurements of a whole evaluation set into metrics."""

    @abstractmethod
    def baseline(self, train: Columns, held_out: Columns) -> dict[str, float]:
        """Score the task's naive answer (stated in its docstring) in the same metrics, without a model."""
