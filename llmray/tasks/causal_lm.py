"""Predict the next token: blocks of packed documents in, text out.  It does not know who reads the text."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from llmray.corpus.record import Columns
from llmray.job.errors import ModelError, RequestError
from llmray.tasks.base import Answer, Request, Tensors
from llmray.tasks.generating import fitting, grouped, position_limit
from llmray.tasks.language import LanguageModel, Scores, inputs, numbered, summed, target_nll
from llmray.tasks.losses import chunked_cross_entropy
from llmray.tasks.metrics import perplexity, unigram_nll
from llmray.tasks.parameters import TextParameters, generation, judged
from llmray.tasks.tensors import ids_and_mask, padded

if TYPE_CHECKING:  # workers that only read need no model's code, whose import takes seconds
    from transformers import PreTrainedModel

PLAIN_HEADS = ("gpt2", "gpt_neox", "llama", "mistral", "olmo2", "phi3", "qwen2", "qwen3", "smollm3")
"""Kinds of models whose scores are their last hidden states times one matrix, and nothing else."""
CHUNKED_FROM_BYTES, COMPILED_CHUNKED_FROM_BYTES = 1 << 24, 1 << 30
"""Scores of one pass above which the loss is taken in chunks: where they outgrow a processor's cache that makes a step
1.2 times as fast in bf16, but a compiled loss is faster whole, while memory lasts."""


class CausalLanguageModel(LanguageModel):
    """Inputs `{"text"}`; answers `{"generated_text", "finish_reason", "prompt_tokens", "tokens"}`."""

    name: ClassVar[str] = "causal_lm"
    auto_class: ClassVar[str] = "AutoModelForCausalLM"
    headline: ClassVar[str] = "perplexity"

    def collate(self, features: Columns) -> Tensors:
        """No mask: what fills a row up is behind all that is read, and a mask would cost each layer an addition."""
        batch = {"input_ids": padded(features["input_ids"], self._pad)}
        labels = padded(features["input_ids"], -100)
        if "lengths" not in features:
            return batch | {"labels": labels}
        documents = numbered(features["lengths"], labels.shape[1])
        firsts = documents[:, 1:] != documents[:, :-1]
        labels[:, 1:][firsts] = -100  # nothing of its own document tells what it begins with
        return batch | {"documents": documents, "labels": labels}

    def loss(self, model: torch.nn.Module, batch: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
        labels = batch["labels"][:, 1:]
        count = (labels != -100).sum()
        given = inputs(model, batch, causal=True)
        if self._in_chunks(model, labels):
            return self._chunked(model, given, labels), count
        out = model(**given, use_cache=False)
        return self.smoothed(model, out.loss * count, out.logits[:, :-1], labels), count

    def _in_chunks(self, model: Any, labels: torch.Tensor) -> bool:
        """Whether the scores of all words at all places are not to exist at once.  Raises `ModelError`."""
        plain = model.config.model_type in PLAIN_HEADS
        if self.chunked_loss is True and not plain:
            raise ModelError(
                f"train.chunked_loss: {model.config.model_type} models may do more to their scores than multiply;"
                f" set it to false, or take one of {', '.join(PLAIN_HEADS)}"
            )
        if self.chunked_loss == "auto":
            most = COMPILED_CHUNKED_FROM_BYTES if torch.compiler.is_compiling() else CHUNKED_FROM_BYTES
            return plain and 4 * labels.numel() * model.config.vocab_size > most
        return self.chunked_loss

    def _chunked(self, model: Any, given: Tensors, labels: torch.Tensor) -> torch.Tensor:
        read = {name: tensor for name, tensor in given.items() if name != "labels"}
        hidden = model.base_model(**read, use_cache=False).last_hidden_state[:, :-1].flatten(0, 1)
        head = model.get_output_embeddings()
        smoothing = self.label_smoothing if model.training else 0.0
        return chunked_cross_entropy(hidden, head.weight, labels.flatten(), head.bias, smoothing)

    def answer(self, model: PreTrainedModel, requests: Sequence[Request]) -> list[Answer | RequestError]:
        return grouped(requests, lambda r: self.prepare(model, r), lambda p, rows: self._generate(model, p, rows))

    def prepare(self, model: PreTrainedModel, request: Request) -> tuple[TextParameters, list[int]]:
        """Judged parameters and the prompt's ids.  Raises `RequestError`."""
        parameters = judged(TextParameters, request.parameters)
        ids = self.processor.tokenizer(request.inputs["text"], add_special_tokens=False)["input_ids"] or [self.end]
        return fitting(model, parameters, ids, "inputs"), ids

    def settings(self, model: PreTrainedModel, parameters: TextParameters) -> Any:
        """What `model.generate` is told."""
        most = position_limit(model)
        config = generation(parameters, 1, most, pad_token_id=self._pad, eos_token_id=self.end)
        config.stop_strings = list(parameters.stop) or None
        return config

    def _generate(self, model: PreTrainedModel, parameters: TextParameters, prompts: list[list[int]]) -> list[Answer]:
        width = max(map(len, prompts))
        ids = torch.tensor([[self._pad] * (width - len(p)) + p for p in prompts], device=model.device)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=model.device)
        tokenizer = self.processor.tokenizer
        config = self.settings(model, parameters)
        out = model.generate(ids, attention_mask=mask, generation_config=config, tokenizer=tokenizer)
        return [self._told(parameters, p, row[width:].tolist()) for p, row in zip(prompts, out, strict=True)]

    def _told(self, parameters: TextParameters, prompt: list[int], new: list[int]) -> Answer:
        ended = self.end in new
        new = new[: new.index(self.end)] if ended else new
        text = self.processor.tokenizer.decode(new, skip_special_tokens=True)
        cuts = [text.index(stop) + len(stop) for stop in parameters.stop if stop in text]
        text = text[: min(cuts)] if cuts else text
        tokens = self._reaching(parameters.stop, new) if cuts else len(new)
        if parameters.return_full_text:
            text = self.processor.tokenizer.decode(prompt, skip_special_tokens=True) + text
        reason = "stop_sequence" if cuts else "eos_token" if ended else "length"
        return {"generated_text": text, "finish_reason": reason, "prompt_tokens": len(prompt), "tokens": tokens}

    def _reaching(self, stops: Sequence[str], ids: list[int]) -> int:
        """How many tokens it takes to come to a stop string; `generate` may have gone on behind it."""

        def stopped(count: int) -> bool:
            text = self.processor.tokenizer.decode(ids[:count], skip_special_tokens=True)
            return any(stop in text.rstrip("�") for stop in stops)  # a character may still lack some of its bytes

        return bisect_left(range(len(ids)), True, key=stopped)

    def measure(self, model: PreTrainedModel, rows: Columns) -> list[dict[str, Any]]:
        """Each document's negative log-likelihood (nats), every token predicted, the first one after an end token."""
        documents = [[self.end, *ids.tolist(), self.end] for ids in self.ids(rows["text"])]
        window = min(position_limit(model), self.options.seq_len + 1)
        windows = [[ids[at : at + window] for at in range(0, len(ids) - 1, window - 1)] for ids in documents]
        found = summed(windows, window, lambda some: self._likelihoods(model, some))
        return [
            {"nll": nll, "tokens": len(ids) - 1, "bytes": len(text.encode())}
            for (nll,), ids, text in zip(found, documents, rows["text"], strict=True)
        ]

    def _likelihoods(self, model: PreTrainedModel, windows: list[list[int]]) -> Scores:
        """Each window's negative log-likelihood (nats) but for its first token."""
        batch = ids_and_mask(windows, self._pad)
        with torch.inference_mode():
            logits = model(**{k: v.to(model.device) for k, v in batch.items()}).logits[:, :-1].float()
        return zip(target_nll(logits, padded(windows, -100)[:, 1:].to(logits.device)), strict=True)

    def summarise(self, measurements: Sequence[dict[str, Any]]) -> dict[str, float]:
        nll, tokens = sum(m["nll"] for m in measurements), sum(m["tokens"] for m in measurements)
        written = sum(m["bytes"] for m in measurements)
        return {
            "perplexity": perplexity(nll, tokens),
            "loss": nll / max(tokens, 1),
            "bits_per_byte": nll / math.log(2) / max(written, 1),
        }

    def baseline(self, train: Columns, held_out: Columns) -> dict[str, float]:
        """A unigram model: add-one-smoothed frequencies of the training documents' tokens."""
        known, asked = (
            [i for ids in self.ids(r["text"]) for i in [*ids.tolist(), self.end]] for r in (train, held_out)
        )
        nll, tokens = unigram_nll(known, asked, len(self.processor.tokenizer))
        written = sum(len(text.encode()) for text in held_out["text"])
        return self.summarise([{"nll": nll, "tokens": tokens, "bytes": written}])

    @property
    def end(self) -> int:
        return int(self.processor.tokenizer.eos_token_id)

    @property
    def _pad(self) -> int:
        pad = self.processor.tokenizer.pad_token_id
        return self.end if pad is None else int(pad)
