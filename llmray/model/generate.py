"""Text as it is being generated.  It does not know who reads it."""

import threading
from collections.abc import Iterator
from typing import Any

import torch
from transformers import PreTrainedModel, StoppingCriteria, StoppingCriteriaList, TextIteratorStreamer

from llmray.job.errors import ModelError, RequestError
from llmray.tasks.base import Request, Task
from llmray.tasks.causal_lm import CausalLanguageModel


class _Cancelled(StoppingCriteria):
    """Ends generation once nobody reads any more."""

    def __init__(self) -> None:
        self.event = threading.Event()

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **_: Any) -> torch.BoolTensor:
        return torch.full((input_ids.shape[0],), self.event.is_set(), dtype=torch.bool)  # type: ignore[return-value]


def stream(task: Task, model: PreTrainedModel, request: Request) -> Iterator[str]:
    """Pieces of text, whole characters only; closing the iterator ends the generation.

    Raises `RequestError` at once when the request is wrong.
    """
    if not isinstance(task, CausalLanguageModel):
        raise RequestError(f"stream: {task.name} answers whole; only causal_lm streams")
    parameters, ids = task.prepare(model, request)
    config = task.settings(model, parameters, len(ids))
    return _pieces(task, model, ids, config, parameters)


def _pieces(
    task: CausalLanguageModel, model: PreTrainedModel, ids: list[int], config: Any, parameters: Any
) -> Iterator[str]:
    tokenizer = task.processor.tokenizer
    streamer, cancelled = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True), _Cancelled()
    failure: list[BaseException] = []

    def run() -> None:
        try:
            with torch.inference_mode(), torch.random.fork_rng(enabled=parameters.seed is not None):
                if parameters.seed is not None:
                    torch.manual_seed(parameters.seed)
                model.generate(
                    torch.tensor([ids], device=model.device), generation_config=config, tokenizer=tokenizer,
                    streamer=streamer, stopping_criteria=StoppingCriteriaList([cancelled]),
                )  # fmt: skip
        except BaseException as error:  # noqa: BLE001 — carried to the reader's thread, raised there
            failure.append(error)
            streamer.end()

    thread = threading.Thread(target=run, daemon=True, name="generate")
    thread.start()
    try:
        if parameters.return_full_text:
            yield tokenizer.decode(ids, skip_special_tokens=True)
        yield from _until_stop(streamer, parameters.stop)
    finally:
        cancelled.event.set()
        thread.join()
    if failure:
        raise ModelError(f"generation failed: {failure[0]}") from failure[0]


def _until_stop(pieces: Any, stops: tuple[str, ...]) -> Iterator[str]:
    """Pieces up to and with the first stop string; what may be its beginning is held back."""
    longest, told = max((len(stop) for stop in stops), default=1), ""
    sent = 0
    for piece in pieces:
        told += piece
        cuts = [told.index(stop) + len(stop) for stop in stops if stop in told]
        if cuts:
            yield told[sent : min(cuts)]
            return
        safe = len(told) - (longest - 1)
        if safe > sent:
            yield told[sent:safe]
            sent = safe
    if told[sent:]:
        yield told[sent:]
