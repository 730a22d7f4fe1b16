"""A model that generates, converted to CTranslate2 and asked as `transformers`' `generate` is.

It does not know what the text means.  Its vocabulary is the tokenizer's, place by place, so that ids are the same on
both sides.
"""

from collections.abc import Iterable, Sequence
from math import ceil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ctranslate2
import numpy as np
import torch
from ctranslate2.converters import transformers as converters
from transformers import GenerationConfig, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from llmray.job.schema import Model
from llmray.model import load
from llmray.tasks.base import Task

LOADERS = {
    "gpt2": converters.GPT2Loader,
    "llama": converters.LlamaLoader,
    "marian": converters.BartLoader,
    "t5": converters.T5Loader,
}
"""Kind of model → what reads its weights.  `MarianMTLoader` would drop the last token, which in OPUS models is the
padding and in ours is a word."""
NARROW = 1024
"""Up to this width an int8 product takes one core less time than two cores take to agree on it."""


def convert(model: Any, task: Task, folder: Path, *, int8: bool) -> None:
    """Write a CTranslate2 model; `model` is taken apart meanwhile."""
    loader, tokenizer = LOADERS[model.config.model_type](), task.processor.tokenizer
    if model.config.model_type == "marian":
        model.config.normalize_before = model.config.normalize_embedding = False
    with torch.no_grad():
        spec = loader.get_model_spec(model)
        loader.set_config(spec.config, model, tokenizer)
        loader.set_vocabulary(spec, names(tokenizer, model.config.get_text_config().vocab_size))
        spec.validate()
        spec.optimize(quantization="int8" if int8 else "float32")
    spec.save(str(folder))


def names(tokenizer: Any, size: int) -> list[str]:
    """The token of each id; a model may have more ids than its tokenizer has tokens."""
    known = tokenizer.convert_ids_to_tokens(list(range(min(len(tokenizer), size))))
    known += [None] * (size - len(known))
    return [f"<unused-{place}>" if token is None else token for place, token in enumerate(known)]


def opened(section: Model, form: Path, task: Task, *, int8: bool) -> Any:
    """The form beside a model's weights.  Raises `ModelError` where the model's folder itself is wrong."""
    config = load.configured(section, task)
    tokens = names(task.processor.tokenizer, config.get_text_config().vocab_size)
    kind = Translator if config.is_encoder_decoder else Writer
    return kind(str(form), config, load.generation_config(section.from_, config), tokens, "int8" if int8 else "float32")


class Engine:
    """What both kinds share: how a `GenerationConfig` is told to CTranslate2."""

    device = torch.device("cpu")

    def __init__(
        self, form: str, config: Any, generation_config: GenerationConfig, tokens: Sequence[str], compute_type: str
    ) -> None:
        self.config, self.generation_config, self.tokens = config, generation_config, tokens
        self.ids = {token: place for place, token in enumerate(tokens)}
        cores = torch.get_num_threads()
        self.workers = cores if compute_type == "int8" and config.get_text_config().hidden_size <= NARROW else 1
        """How many rows are worked at at once, each on cores of its own."""
        self.model: Any = self.kind(
            form, compute_type=compute_type, inter_threads=self.workers, intra_threads=cores // self.workers
        )

    kind: Any

    def share(self, rows: int) -> int:
        """Rows that a worker takes."""
        return ceil(rows / self.workers)

    def refusal(self, parameters: dict[str, Any]) -> str | None:
        """Why a request cannot be answered as its parameters ask."""
        if not parameters.get("do_sample"):
            return None
        if parameters.get("seed") is not None:
            return "parameters.seed: CTranslate2 cannot repeat a draw; leave it out, or serve the model by torch"
        if (parameters.get("num_beams") or 1) > 1:
            return "parameters.num_beams: CTranslate2 samples without beams; leave do_sample out, or serve by torch"
        return None

    def asked(self, config: GenerationConfig) -> dict[str, Any]:
        drawn = {
            "sampling_topk": config.top_k, "sampling_topp": config.top_p, "sampling_temperature": config.temperature,
        }  # fmt: skip
        return {
            "beam_size": config.num_beams,
            "repetition_penalty": config.repetition_penalty,
            "end_token": [int(config.eos_token_id)],
            "return_end_token": True,
            "suppress_sequences": [[self.tokens[i] for i in bad] for bad in config.bad_words_ids or ()] or None,
        } | (drawn if config.do_sample else {})

    def spelled(self, ids: torch.Tensor, mask: torch.Tensor) -> list[list[str]]:
        """Rows of tokens, padding left out."""
        return [[self.tokens[i] for i in row[there].tolist()] for row, there in zip(ids, mask.bool(), strict=True)]


class Translator(Engine):
    """A model with an encoder and a decoder."""

    kind = ctranslate2.Translator

    def generate(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, generation_config: GenerationConfig
    ) -> torch.Tensor:
        """Ids as `transformers` gives them: the decoder's start, the text, its end, padding."""
        found = self.model.translate_batch(
            self.spelled(input_ids, attention_mask), max_batch_size=self.share(len(input_ids)), max_input_length=0,
            min_decoding_length=0, max_decoding_length=generation_config.max_new_tokens,
            **self.asked(generation_config),
        )  # fmt: skip
        start = int(generation_config.decoder_start_token_id)
        rows = [[start, *(self.ids[token] for token in one.hypotheses[0])] for one in found]
        return _filled(rows, generation_config)


class Writer(Engine):
    """A model that goes on with a text."""

    kind = ctranslate2.Generator

    def __call__(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SimpleNamespace:
        ids, lengths = (np.ascontiguousarray(t.numpy(), np.int32) for t in (input_ids, attention_mask.sum(1)))
        view = ctranslate2.StorageView.from_array
        return SimpleNamespace(logits=torch.from_numpy(np.array(self.model.forward_batch(view(ids), view(lengths)))))

    def generate(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        generation_config: GenerationConfig,
        tokenizer: Any,
        streamer: BaseStreamer | None = None,
        stopping_criteria: StoppingCriteriaList | None = None,
    ) -> torch.Tensor:
        """Ids as `transformers` gives them: the prompt, the text, its end, padding."""
        rows = self.spelled(input_ids, attention_mask)
        written: dict[int, list[int]] = {}
        if streamer:
            streamer.put(input_ids)
        for places in _apart(rows):
            heard = Heard(tokenizer, generation_config.stop_strings or (), streamer, stopping_criteria or ())
            follows = heard.matters(generation_config)  # steps are told by their place in a worker's share
            found = self.model.generate_batch(
                [rows[place] for place in places], max_length=generation_config.max_new_tokens,
                max_batch_size=0 if follows else self.share(len(places)), callback=heard if follows else None,
                include_prompt_in_result=False, **self.asked(generation_config),
            )  # fmt: skip
            written |= {place: one.sequences_ids[0] for place, one in zip(places, found, strict=True)}
        if streamer:
            streamer.end()
        new = _filled([written[place] for place in range(len(rows))], generation_config)
        return torch.cat([input_ids, new], 1)


def _apart(rows: Sequence[Sequence[str]]) -> list[list[int]]:
    """Places of prompts of one token, and of longer ones: together, the longer ones' ends would count as text."""
    groups = ([i for i, row in enumerate(rows) if (len(row) == 1) == short] for short in (True, False))
    return [group for group in groups if group]


def _filled(rows: Sequence[Sequence[int]], config: GenerationConfig) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(row, dtype=torch.long) for row in rows], batch_first=True, padding_value=int(config.pad_token_id)
    )


class Heard:
    """Follows what is generated, tells it to a streamer, and says when a text is to end."""

    def __init__(
        self, tokenizer: Any, stops: Sequence[str], streamer: BaseStreamer | None, criteria: Iterable[Any]
    ) -> None:
        self.tokenizer, self.stops, self.streamer, self.criteria = tokenizer, tuple(stops), streamer, list(criteria)
        self.texts: dict[int, list[int]] = {}

    def matters(self, config: GenerationConfig) -> bool:
        """CTranslate2 tells its steps only without beams."""
        return config.num_beams == 1 and bool(self.stops or self.streamer)

    def __call__(self, step: Any) -> bool:
        ids = self.texts.setdefault(step.batch_id, [])
        ids.append(step.token_id)
        if self.streamer:
            self.streamer.put(torch.tensor([step.token_id]))
        if self.stops and any(stop in self.tokenizer.decode(ids, skip_special_tokens=True) for stop in self.stops):
            return True
        told = torch.tensor([ids])
        return any(bool(criterion(told, None).all()) for criterion in self.criteria)
