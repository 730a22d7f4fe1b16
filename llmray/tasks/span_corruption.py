"""Say what was cut out of a text.  It does not know what the encoder and decoder will be used for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from llmray.corpus.pack import pack
from llmray.corpus.record import Columns
from llmray.job.errors import JobError, RequestError
from llmray.tasks.base import Answer, Processor, Request, Tensors
from llmray.tasks.generating import grouped
from llmray.tasks.language import LanguageModel, Scores, summed, target_nll
from llmray.tasks.metrics import perplexity, unigram_nll
from llmray.tasks.parameters import SequenceParameters, generation, judged
from llmray.tasks.tensors import ids_and_mask, padded

if TYPE_CHECKING:  # workers that only read need no model's code, whose import takes seconds
    from transformers import PreTrainedModel

SENTINEL = re.compile(r"<extra_id_\d+>")


class SpanCorruption(LanguageModel):
    """Inputs `{"text"}` with `<extra_id_0>` … for what is missing; answers `{"generated_text"}`, the whole text."""

    name: ClassVar[str] = "span_corruption"
    auto_class: ClassVar[str] = "AutoModelForSeq2SeqLM"
    headline: ClassVar[str] = "perplexity"
    special_tokens: ClassVar[tuple[str, ...]] = tuple(f"<extra_id_{n}>" for n in range(100))
    """As many as T5 has."""

    def __init__(self, options: Any, processor: Processor, seed: int = 0, **loss: Any) -> None:
        super().__init__(options, processor, seed, **loss)
        known = processor.tokenizer.get_vocab()
        self.sentinels = [known[token] for token in self.special_tokens if token in known]
        _, count = noise(options.seq_len, options)
        if count > len(self.sentinels):
            raise JobError(
                f"task: blocks of {options.seq_len} tokens lose {count} spans, but the tokenizer has"
                f" {len(self.sentinels)} tokens <extra_id_0> … to mark them; take T5's tokenizer, or a smaller"
                " task.seq_len or noise_density, or a larger mean_span_tokens"
            )

    @property
    def end(self) -> int:
        return int(self.processor.tokenizer.eos_token_id)

    def encode(self, rows: Columns) -> Columns:
        """Blocks of joined documents, as T5's were."""
        return {"input_ids": pack(self.ids(rows["text"]), self.options.seq_len, self.end)}

    def collate(self, features: Columns) -> Tensors:
        """Put a sentinel where a span is cut out; the target tells each sentinel and its span.

        What is cut out follows from the seed and the block alone, so that a resumed run learns the same.
        """
        pairs = [self._corrupted(np.asarray(ids)) for ids in features["input_ids"]]
        batch = ids_and_mask([source for source, _ in pairs], int(self.processor.tokenizer.pad_token_id))
        return batch | {"labels": padded([target for _, target in pairs], -100)}

    def _corrupted(self, ids: NDArray[Any]) -> tuple[list[int], list[int]]:
        draw = np.random.default_rng([self.seed, int(ids.sum()), int(ids[0]), len(ids)])
        cut = spans(draw, len(ids), *noise(len(ids), self.options))
        return (
            [*_marked(ids, cut, self.sentinels), self.end],
            [*_marked(ids, ~cut, self.sentinels), self.end],
        )

    def answer(self, model: PreTrainedModel, requests: Sequence[Request]) -> list[Answer | RequestError]:
        return grouped(requests, self._prepare, lambda p, texts: self._filled(model, p, texts))

    def _prepare(self, request: Request) -> tuple[SequenceParameters, str]:
        parameters = judged(SequenceParameters, request.parameters)
        text = request.inputs["text"]
        if not SENTINEL.search(text):
            raise RequestError("inputs: the text must hold <extra_id_0> where something is missing")
        tokens = len(self.processor.tokenizer(text)["input_ids"])
        if tokens > self.options.seq_len:
            raise RequestError(f"inputs: {tokens} tokens; this model reads at most {self.options.seq_len}")
        return parameters, text

    def _filled(self, model: PreTrainedModel, parameters: SequenceParameters, texts: list[str]) -> list[Answer]:
        tokenizer = self.processor.tokenizer
        rows = [[*ids, self.end] for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
        batch = ids_and_mask(rows, int(tokenizer.pad_token_id))
        config = generation(
            parameters, 1, self.options.seq_len, pad_token_id=tokenizer.pad_token_id, eos_token_id=self.end,
            decoder_start_token_id=model.config.decoder_start_token_id,
        )  # fmt: skip
        out = model.generate(**{k: v.to(model.device) for k, v in batch.items()}, generation_config=config)
        return [{"generated_text": self._whole(text, ids.tolist())} for text, ids in zip(texts, out, strict=True)]

    def _whole(self, text: str, told: list[int]) -> str:
        """The text with each sentinel replaced by what was told after it; by nothing where it was not told."""
        tokenizer = self.processor.tokenizer
        found: dict[str, list[int]] = {}
        span: list[int] = []
        for token in told:
            if token in self.sentinels:
                span = found.setdefault(tokenizer.convert_ids_to_tokens(token), [])
            else:
                span.append(token)
        missing = {name: tokenizer.decode(ids, skip_special_tokens=True) for name, ids in found.items()}
        return SENTINEL.sub(lambda sentinel: missing.get(sentinel[0], ""), text)

    def measure(self, model: PreTrainedModel, rows: Columns) -> list[dict[str, Any]]:
        """Each document's blocks, cut as in training: negative log-likelihood (nats) of the targets."""
        per_row = [self.encode({"text": [text]})["input_ids"] for text in rows["text"]]
        found = summed(per_row, self.options.seq_len, lambda blocks: self._scores(model, blocks))
        return [{"nll": nll, "tokens": targets} for nll, targets in found]

    def _scores(self, model: PreTrainedModel, blocks: list[Any]) -> Scores:
        """Of each block the negative log-likelihood (nats) of its targets, and their number."""
        batch = self.collate({"input_ids": blocks})
        with torch.inference_mode():
            logits = model(**{k: v.to(model.device) for k, v in batch.items()}).logits.float().cpu()
        labels = batch["labels"]
        return zip(target_nll(logits, labels), (labels != -100).sum(1).tolist(), strict=True)

    def summarise(self, measurements: Sequence[dict[str, Any]]) -> dict[str, float]:
        """Of each token of the targets, sentinels and ends included."""
        nll, tokens = sum(m["nll"] for m in measurements), sum(m["tokens"] for m in measurements)
        return {"perplexity": perplexity(nll, tokens), "loss": nll / max(tokens, 1)}

    def baseline(self, train: Columns, held_out: Columns) -> dict[str, float]:
        """A unigram model: add-one-smoothed frequencies of the training targets' tokens."""
        known, asked = (
            [i for block in self.encode(rows)["input_ids"] for i in self._corrupted(block)[1]]
            for rows in (train, held_out)
        )
        nll, tokens = unigram_nll(known, asked, len(self.processor.tokenizer))
        return self.summarise([{"nll": nll, "tokens": tokens}])


def noise(length: int, options: Any) -> tuple[int, int]:
    """How many tokens of a block are cut out, and in how many spans; at least one token stays before each span."""
    tokens = min(max(round(length * options.noise_density), 1), max(length - 1, 0))
    spans = max(round(tokens / options.mean_span_tokens), 1)
    return tokens, min(spans, tokens, length - tokens)


def spans(draw: np.random.Generator, length: int, tokens: int, count: int) -> NDArray[np.bool_]:
    """Which tokens are cut out: `count` spans, each after a stretch that stays, all lengths drawn evenly."""
    if not count:
        return np.zeros(length, dtype=bool)
    lengths = np.stack([_split(draw, length - tokens, count), _split(draw, tokens, count)], 1).ravel()
    return np.repeat(np.arange(2 * count) % 2 == 1, lengths)


def _split(draw: np.random.Generator, total: int, parts: int) -> NDArray[np.int64]:
    """Positive lengths that add up to `total`."""
    cuts = np.sort(draw.choice(total - 1, parts - 1, replace=False)) + 1
    return np.diff(np.concatenate([[0], cuts, [total]]))


def _marked(ids: NDArray[Any], hidden: NDArray[np.bool_], sentinels: Sequence[int]) -> list[int]:
    """The ids with every stretch of hidden ones replaced by the next sentinel."""
    first = hidden & ~np.concatenate([[False], hidden[:-1]])
    found = np.where(first, np.asarray(sentinels)[np.maximum(np.cumsum(first) - 1, 0)], ids)
    return [int(i) for i in found[first | ~hidden]]
