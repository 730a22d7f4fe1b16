"""Predict masked tokens.  It does not know what the encoder will be used for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from llmray.corpus.record import Columns
from llmray.job.errors import RequestError
from llmray.tasks.base import Answer, Request, Tensors
from llmray.tasks.generating import grouped, position_limit
from llmray.tasks.language import LanguageModel, Scores, inputs, numbered, summed, target_nll
from llmray.tasks.metrics import perplexity, unigram_nll
from llmray.tasks.parameters import FillParameters, judged
from llmray.tasks.tensors import ids_and_mask, read
from llmray.tasks.words import Words

if TYPE_CHECKING:  # workers that only read need no model's code, whose import takes seconds
    from transformers import PreTrainedModel


class MaskedLanguageModel(LanguageModel):
    """Inputs `{"text"}` with one mask; answers `{"candidates": [{"score", "token", "token_str", "sequence"}]}`."""

    name: ClassVar[str] = "masked_lm"
    auto_class: ClassVar[str] = "AutoModelForMaskedLM"
    headline: ClassVar[str] = "accuracy"

    @property
    def end(self) -> int:
        return int(self.processor.tokenizer.sep_token_id)

    def collate(self, features: Columns) -> Tensors:
        """Hide `mask_share` of the tokens: 80 % masked, 10 % random, 10 % kept (https://arxiv.org/abs/1810.04805).

        With `whole_word` one draw decides for all tokens of a word whether it is hidden, not what is put there.

        What is hidden follows from the seed and the blocks alone, so that a resumed run hides the same.
        """
        tokenizer = self.processor.tokenizer
        batch = ids_and_mask(features["input_ids"], int(tokenizer.pad_token_id))
        ids = batch["input_ids"]
        draw = np.random.default_rng([self.seed, int(ids.sum()), int(ids[:, 0].sum())])
        chance = torch.from_numpy(draw.random((2, *ids.shape), dtype=np.float32))
        special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
        if self.options.whole_word:
            chance[0] = chance[0].gather(1, self._words.firsts(ids))
        hidden = (chance[0] < self.options.mask_share) & ~special
        labels = torch.where(hidden, ids, -100)
        other = torch.from_numpy(draw.integers(0, len(tokenizer), ids.shape))
        ids = torch.where(hidden & (chance[1] < 0.8), int(tokenizer.mask_token_id), ids)
        ids = torch.where(hidden & (chance[1] >= 0.9), other, ids)
        if "lengths" in features:
            return {"input_ids": ids, "documents": numbered(features["lengths"], ids.shape[1]), "labels": labels}
        return {"input_ids": ids, "attention_mask": batch["attention_mask"], "labels": labels}

    @cached_property
    def _words(self) -> Words:
        return Words(self.processor.tokenizer)

    def loss(self, model: torch.nn.Module, batch: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
        return super().loss(model, inputs(model, batch, causal=False))

    def answer(self, model: PreTrainedModel, requests: Sequence[Request]) -> list[Answer | RequestError]:
        return grouped(requests, lambda r: self._prepare(model, r), lambda p, rows: self._fill(model, p, rows))

    def _prepare(self, model: PreTrainedModel, request: Request) -> tuple[FillParameters, list[int]]:
        parameters = judged(FillParameters, request.parameters)
        tokenizer = self.processor.tokenizer
        ids = tokenizer(request.inputs["text"])["input_ids"]
        if ids.count(tokenizer.mask_token_id) != 1:
            raise RequestError(f"inputs: the text must hold {tokenizer.mask_token} exactly once")
        if len(ids) > position_limit(model):
            raise RequestError(f"inputs: {len(ids)} tokens; this model reads at most {position_limit(model)}")
        return parameters, ids

    def _fill(self, model: PreTrainedModel, parameters: FillParameters, rows: list[list[int]]) -> list[Answer]:
        tokenizer = self.processor.tokenizer
        at_mask = read(
            model, rows, int(tokenizer.pad_token_id), lambda out, ids: out.logits[ids == tokenizer.mask_token_id]
        )
        chosen = torch.stack(at_mask).softmax(-1).topk(parameters.top_k)
        return [
            {"candidates": [self._candidate(ids, s, t) for s, t in zip(score.tolist(), token.tolist(), strict=True)]}
            for ids, score, token in zip(rows, chosen.values, chosen.indices, strict=True)
        ]

    def _candidate(self, ids: list[int], score: float, token: int) -> dict[str, Any]:
        tokenizer = self.processor.tokenizer
        filled = [token if i == tokenizer.mask_token_id else i for i in ids]
        text = tokenizer.decode(filled, skip_special_tokens=True)
        return {"score": score, "token": token, "token_str": tokenizer.decode([token]), "sequence": text}

    def measure(self, model: PreTrainedModel, rows: Columns) -> list[dict[str, Any]]:
        """Blocks of each document with tokens hidden as in training."""
        per_row = [self.encode({"text": [text]})["input_ids"] for text in rows["text"]]
        found = summed(per_row, self.options.seq_len, lambda blocks: self._scores(model, blocks))
        return [{"nll": nll, "tokens": hidden, "right": right} for nll, hidden, right in found]

    def _scores(self, model: PreTrainedModel, blocks: list[Any]) -> Scores:
        """Of each block the negative log-likelihood (nats) of its hidden tokens, their number, and those guessed."""
        batch = self.collate({"input_ids": blocks})
        labels = batch.pop("labels")
        with torch.inference_mode():
            logits = model(**{k: v.to(model.device) for k, v in batch.items()}).logits.float().cpu()
        hidden = labels != -100
        right = ((logits.argmax(-1) == labels) & hidden).sum(1)
        return zip(target_nll(logits, labels), hidden.sum(1).tolist(), right.tolist(), strict=True)

    def summarise(self, measurements: Sequence[dict[str, Any]]) -> dict[str, float]:
        nll, tokens = sum(m["nll"] for m in measurements), sum(m["tokens"] for m in measurements)
        right = sum(m["right"] for m in measurements)
        return {"perplexity": perplexity(nll, tokens), "accuracy": 100 * right / max(tokens, 1)}

    def baseline(self, train: Columns, held_out: Columns) -> dict[str, float]:
        """A unigram model of the training documents' tokens; its guess is always the most frequent one."""
        known, asked = ([i for block in self.encode(rows)["input_ids"] for i in block] for rows in (train, held_out))
        nll, tokens = unigram_nll(known, asked, len(self.processor.tokenizer))
        usual = max(set(known), key=known.count)
        return self.summarise([{"nll": nll, "tokens": tokens, "right": asked.count(usual)}])
