"""Say the same in another language.  It does not know which languages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from llmray.corpus.record import Columns, Pair, Record
from llmray.job.errors import RequestError
from llmray.tasks.base import Answer, Request, Task, Tensors
from llmray.tasks.generating import grouped
from llmray.tasks.metrics import translation_scores
from llmray.tasks.parameters import SequenceParameters, generation, judged
from llmray.tasks.tensors import ids_and_mask, padded

if TYPE_CHECKING:  # workers that only read need no model's code, whose import takes seconds
    from transformers import PreTrainedModel


class Translation(Task):
    """Inputs `{"text"}`; answers `{"translation_text"}`."""

    name: ClassVar[str] = "translation"
    record: ClassVar[type[Record]] = Pair
    auto_class: ClassVar[str] = "AutoModelForSeq2SeqLM"
    headline: ClassVar[str] = "bleu"

    def encode(self, rows: Columns) -> Columns:
        return {
            "input_ids": self._sources(list(rows["source"])),
            "labels": self._ended(text_target=list(rows["target"]), most=self.options.max_target_tokens),
        }

    def _sources(self, texts: list[str]) -> list[list[int]]:
        return self._ended(text=texts, most=self.options.max_source_tokens)

    def _ended(self, most: int, **texts: list[str]) -> list[list[int]]:
        """Ids without a begin token, cut to `most`, always closed by one end token."""
        tokenizer = self.processor.tokenizer
        end = int(tokenizer.eos_token_id)
        return [[*ids[: most - 1], end] for ids in tokenizer(**texts, add_special_tokens=False)["input_ids"]]

    def collate(self, features: Columns) -> Tensors:
        pad = int(self.processor.tokenizer.pad_token_id)
        return ids_and_mask(features["input_ids"], pad) | {"labels": padded(features["labels"], -100)}

    def answer(self, model: PreTrainedModel, requests: Sequence[Request]) -> list[Answer | RequestError]:
        def told(parameters: SequenceParameters, texts: list[str]) -> list[Answer]:
            return [{"translation_text": text} for text in self._translate(model, texts, parameters)]

        return grouped(requests, self._prepare, told)

    def _prepare(self, request: Request) -> tuple[SequenceParameters, str]:
        parameters = judged(SequenceParameters, request.parameters)
        text = request.inputs["text"]
        if not text.strip():
            raise RequestError("inputs: the text is empty")
        tokens = len(self.processor.tokenizer(text, add_special_tokens=False)["input_ids"]) + 1
        if tokens > self.options.max_source_tokens:
            raise RequestError(
                f"inputs: {tokens} tokens; this model translates at most {self.options.max_source_tokens}"
            )
        return parameters, text

    def _translate(self, model: PreTrainedModel, texts: list[str], parameters: SequenceParameters) -> list[str]:
        tokenizer = self.processor.tokenizer
        batch = ids_and_mask(self._sources(texts), int(tokenizer.pad_token_id))
        start = model.config.decoder_start_token_id
        config = generation(
            parameters, self.options.beams, self.options.max_target_tokens,
            pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, decoder_start_token_id=start,
            bad_words_ids=model.generation_config.bad_words_ids,
        )  # fmt: skip
        out = model.generate(**{k: v.to(model.device) for k, v in batch.items()}, generation_config=config)
        return [text.strip() for text in tokenizer.batch_decode(out, skip_special_tokens=True)]

    def measure(self, model: PreTrainedModel, rows: Columns) -> list[dict[str, Any]]:
        with torch.inference_mode():
            told = self._translate(model, list(rows["source"]), SequenceParameters())
        return self._judge(told, rows)

    def _judge(self, told: Sequence[str], rows: Columns) -> list[dict[str, Any]]:
        keys = ("source", "translation", "reference")
        return [dict(zip(keys, row, strict=True)) for row in zip(rows["source"], told, rows["target"], strict=True)]

    def summarise(self, measurements: Sequence[dict[str, Any]]) -> dict[str, float]:
        return translation_scores([m["translation"] for m in measurements], [[m["reference"]] for m in measurements])

    def baseline(self, train: Columns, held_out: Columns) -> dict[str, float]:
        """A copy of the source."""
        return self.summarise(self._judge(list(held_out["source"]), held_out))
