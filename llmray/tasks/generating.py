"""Requests that generate, judged one by one and answered in groups that share parameters.

It does not know what is generated from.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, TypeVar

import torch

from llmray.job.errors import RequestError
from llmray.tasks.base import Answer, Request
from llmray.tasks.parameters import TextParameters

if TYPE_CHECKING:  # workers that only read need no model's code, whose import takes seconds
    from transformers import PreTrainedConfig, PreTrainedModel

P = TypeVar("P", bound=Hashable)
X = TypeVar("X")
T = TypeVar("T", bound=TextParameters)


def grouped(
    requests: Sequence[Request],
    prepare: Callable[[Request], tuple[P, X]],
    answer: Callable[[P, list[X]], list[Answer]],
) -> list[Answer | RequestError]:
    """Answer requests with equal parameters together; one that cannot be prepared gets its error in its place.

    A request with `seed` is answered alone, so that its text depends on nothing else.
    """
    answers: list[Answer | RequestError | None] = [None] * len(requests)
    groups: dict[Hashable, tuple[P, list[int], list[X]]] = {}
    for i, request in enumerate(requests):
        try:
            parameters, prepared = prepare(request)
        except RequestError as error:
            answers[i] = error
            continue
        alone = i if getattr(parameters, "seed", None) is not None else None
        group = groups.setdefault((parameters, alone), (parameters, [], []))
        group[1].append(i)
        group[2].append(prepared)
    for parameters, places, inputs in groups.values():
        for place, result in zip(places, _seeded(parameters, inputs, answer), strict=True):
            answers[place] = result
    return [a for a in answers if a is not None]


def _seeded(parameters: P, inputs: list[X], answer: Callable[[P, list[X]], list[Answer]]) -> list[Answer]:
    seed = getattr(parameters, "seed", None)
    with torch.inference_mode(), torch.random.fork_rng(enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        return answer(parameters, inputs)


def fitting(model: PreTrainedModel, parameters: T, ids: Sequence[int], field: str) -> T:
    """Parameters that ask for no more than the model's positions leave room for behind a prompt of its own length,
    whatever it is answered together with.  Raises `RequestError`, naming `field`, where they leave none.
    """
    limit = position_limit(model)
    if len(ids) >= limit:
        raise RequestError(f"{field}: {len(ids)} tokens; this model reads at most {limit - 1}")
    room = limit - len(ids)
    return parameters.model_copy(update={"max_new_tokens": min(parameters.max_new_tokens or room, room)})


def position_limit(model: PreTrainedModel) -> int:
    """Most tokens that the model's positions reach; without end where they are relative."""
    return positions(model.config.get_text_config()) or 2**20


def positions(config: PreTrainedConfig) -> int | None:
    """Most tokens that a text config's positions reach; None where they are relative."""
    table = getattr(config, "max_position_embeddings", None)
    if table and "roberta" in config.model_type:
        return int(table) - int(config.pad_token_id) - 1  # RoBERTa counts from pad_token_id + 1
    return int(table) if table else None
