"""Put a text into a class, or give it a number.  It does not know what the classes mean."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch.nn.functional import cross_entropy, mse_loss

from llmray.corpus.record import Columns, Example, Record
from llmray.job.errors import DataError, RequestError
from llmray.tasks.base import Answer, Request, Task, Tensors
from llmray.tasks.generating import grouped
from llmray.tasks.metrics import accuracy, correlations, macro_f1
from llmray.tasks.parameters import ClassParameters, judged
from llmray.tasks.tensors import ids_and_mask, read

if TYPE_CHECKING:  # workers that only read need no model's code, whose import takes seconds
    from transformers import PreTrainedConfig, PreTrainedModel


class TextClassification(Task):
    """Inputs `{"text"}`; answers `{"candidates": [{"label", "score"}]}`, best first.

    The classes' names are kept in the model's config, as `transformers` does; a model with one output tells a number.
    """

    name: ClassVar[str] = "classification"
    record: ClassVar[type[Record]] = Example
    auto_class: ClassVar[str] = "AutoModelForSequenceClassification"

    @property
    def headline(self) -> str:  # type: ignore[override]
        return "pearson" if self.options.regression else "accuracy"

    def configure(self, config: PreTrainedConfig) -> None:
        if config.pad_token_id is None:
            config.pad_token_id = self._pad  # a decoder reads the class off its last token that is no padding
        if self.options.regression:
            config.id2label, config.label2id, config.problem_type = {0: "value"}, {"value": 0}, "regression"
        elif self.options.labels:
            config.id2label = dict(enumerate(self.options.labels))
            config.label2id = {label: number for number, label in config.id2label.items()}
            config.problem_type = "single_label_classification"

    def encode(self, rows: Columns) -> Columns:
        """The text's ids, cut to `max_length`, and the label as it is."""
        return {"input_ids": self._ids(list(rows["text"])), "label": list(map(self._target, rows["label"]))}

    def _ids(self, texts: list[str]) -> list[list[int]]:
        out = self.processor.tokenizer(texts, truncation=True, max_length=self.options.max_length)
        return [ids or [self._pad] for ids in out["input_ids"]]

    def _target(self, label: str) -> str | float:
        known = self.options.labels
        if self.options.regression:
            return _number(label)
        if known and label not in known:
            raise DataError(f"label {label!r} is none of {', '.join(known)}; name all classes as task.labels")
        return label

    def collate(self, features: Columns) -> Tensors:
        batch = ids_and_mask(features["input_ids"], self._pad)
        if self.options.regression:
            return batch | {"labels": torch.tensor([float(label) for label in features["label"]])}
        return batch | {"labels": torch.tensor([self.options.labels.index(label) for label in features["label"]])}

    def loss(self, model: torch.nn.Module, batch: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
        """Cross-entropy, or squared error, summed."""
        labels = batch["labels"]
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.float()
        count = torch.tensor(len(labels), device=labels.device)
        if labels.is_floating_point():
            return mse_loss(logits[:, 0], labels, reduction="sum"), count
        return self.smoothed(model, cross_entropy(logits, labels, reduction="sum"), logits, labels), count

    def answer(self, model: PreTrainedModel, requests: Sequence[Request]) -> list[Answer | RequestError]:
        return grouped(requests, self._prepare, lambda p, texts: self._classes(model, p, texts))

    def _prepare(self, request: Request) -> tuple[ClassParameters, str]:
        parameters = judged(ClassParameters, request.parameters)
        if not request.inputs["text"].strip():
            raise RequestError("inputs: the text is empty")
        return parameters, request.inputs["text"]

    def _classes(self, model: PreTrainedModel, parameters: ClassParameters, texts: list[str]) -> list[Answer]:
        names, logits = model.config.id2label, self._logits(model, texts)
        several = model.config.problem_type == "multi_label_classification"
        usual = "none" if len(names) == 1 else "sigmoid" if several else "softmax"
        scores = SCORES[parameters.function_to_apply or usual](logits)
        best = scores.topk(min(parameters.top_k or len(names), len(names)))
        return [
            {"candidates": [{"label": names[i], "score": s} for s, i in zip(row, places, strict=True)]}
            for row, places in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]

    def _logits(self, model: PreTrainedModel, texts: list[str]) -> torch.Tensor:
        return torch.stack(read(model, self._ids(texts), self._pad, lambda out, _: out.logits))

    def measure(self, model: PreTrainedModel, rows: Columns) -> list[dict[str, Any]]:
        logits, names = self._logits(model, list(rows["text"])), model.config.id2label
        found = logits[:, 0].tolist() if self.options.regression else [names[i] for i in logits.argmax(1).tolist()]
        return self._judge(found, rows)

    def _judge(self, found: Sequence[str | float], rows: Columns) -> list[dict[str, Any]]:
        labels = [_number(label) if self.options.regression else label for label in rows["label"]]
        texts = rows.get("text", [""] * len(labels))
        return [
            {"text": text, "label": label, "predicted": predicted}
            for text, label, predicted in zip(texts, labels, found, strict=True)
        ]

    def summarise(self, measurements: Sequence[dict[str, Any]]) -> dict[str, float]:
        """Accuracy and macro F1 in percent; of numbers, Pearson's and Spearman's correlation and the squared error."""
        found, labels = [m["predicted"] for m in measurements], [m["label"] for m in measurements]
        if self.options.regression:
            error = sum((a - b) ** 2 for a, b in zip(found, labels, strict=True)) / max(len(labels), 1)
            return correlations(found, labels) | {"mse": error}
        return {"accuracy": 100 * accuracy(found, labels), "f1": 100 * macro_f1(found, labels)}

    def baseline(self, train: Columns, held_out: Columns) -> dict[str, float]:
        """The training rows' most frequent class, or their mean, for every text."""
        if self.options.regression:
            usual: str | float = sum(map(_number, train["label"])) / max(len(train["label"]), 1)
        else:
            usual = Counter(train["label"]).most_common(1)[0][0]
        return self.summarise(self._judge([usual] * len(held_out["label"]), held_out))

    @property
    def _pad(self) -> int:
        tokenizer = self.processor.tokenizer
        return int(tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id)


SCORES = {
    "softmax": lambda logits: logits.softmax(-1),
    "sigmoid": lambda logits: logits.sigmoid(),
    "none": lambda logits: logits,
}
"""As `transformers`' pipeline turns a model's outputs into scores."""


def _number(label: str) -> float:
    try:
        found = float(label)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise DataError(f"label {label!r} is no number; task.regression learns numbers, without it labels are classes")
    return found
