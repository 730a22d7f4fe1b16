"""Text as it is being generated.  It does not know who reads it."""

import queue
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from transformers import GenerationConfig, PreTrainedModel, StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from llmray.job.errors import ModelError, RequestError
from llmray.tasks.base import Answer, Request, Task
from llmray.tasks.causal_lm import CausalLanguageModel
from llmray.tasks.parameters import TextParameters

Stream: TypeAlias = Generator[str, None, Answer]
POLL_S = 0.05
"""Time between looks whether a reader who waits for the model is still there."""


def stream(task: Task, model: PreTrainedModel, request: Request, lock: threading.Lock) -> Stream:
    """Pieces of text, whole characters only; closing the iterator ends the generation.

    Together they are the text that `task.answer` gives; the generator's value is the rest of that answer.  Sampling
    takes `lock`, since it draws from torch's one generator.  Raises `RequestError` at once when the request is wrong.
    """
    if not isinstance(task, CausalLanguageModel):
        raise RequestError(f"stream: {task.name} answers whole; only causal_lm and chat stream")
    parameters, ids = task.prepare(model, request)
    if (parameters.num_beams or 1) > 1:
        raise RequestError(f"parameters.num_beams: {parameters.num_beams}; a stream has one beam")
    config = task.settings(model, parameters)
    return _generated(task, model, ids, config, parameters, lock)


def _generated(
    task: CausalLanguageModel,
    model: PreTrainedModel,
    ids: list[int],
    config: GenerationConfig,
    parameters: TextParameters,
    lock: threading.Lock,
) -> Stream:
    tokenizer, left = task.processor.tokenizer, threading.Event()
    text = Pieces(tokenizer)

    def run() -> None:
        try:
            with _turn(lock, parameters, left) as read, torch.inference_mode():
                if not read:
                    return
                prompt = torch.tensor([ids], device=model.device)
                model.generate(
                    prompt, attention_mask=torch.ones_like(prompt), generation_config=config, tokenizer=tokenizer,
                    streamer=text, stopping_criteria=StoppingCriteriaList([_NobodyReads(left)]),
                )  # fmt: skip
        except Exception as error:  # noqa: BLE001 — carried to the reader's thread, raised there
            text.told.put(error)

    thread = threading.Thread(target=run, daemon=True, name="generate")
    thread.start()
    try:
        if parameters.return_full_text:
            yield tokenizer.decode(ids, skip_special_tokens=True)
        stopped = yield from until_stop(text, parameters.stop)
    finally:
        left.set()
        thread.join()
    ended = text.last == task.end
    reason = "stop_sequence" if stopped else "eos_token" if ended else "length"
    tokens = text.heard if stopped else text.tokens - ended
    return {"finish_reason": reason, "prompt_tokens": len(ids), "tokens": tokens}


@contextmanager
def _turn(lock: threading.Lock, parameters: TextParameters, left: threading.Event) -> Iterator[bool]:
    """Greedy text needs no turn; sampling waits for its own and seeds torch as asked.  False: the reader has gone."""
    if not parameters.do_sample:
        yield True
        return
    while not lock.acquire(timeout=POLL_S):
        if left.is_set():
            yield False
            return
    try:
        with torch.random.fork_rng(enabled=parameters.seed is not None):
            if parameters.seed is not None:
                torch.manual_seed(parameters.seed)
            yield True
    finally:
        lock.release()


class _NobodyReads(StoppingCriteria):
    """Ends generation once the reader has gone."""

    def __init__(self, left: threading.Event) -> None:
        self.left = left

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        return torch.full((len(input_ids),), self.left.is_set(), dtype=torch.bool, device=input_ids.device)


class Pieces(BaseStreamer):
    """Takes tokens from the thread that generates, gives text to the one that reads.

    New text is what the latest tokens add to the text of those just before them, so that characters made of several
    tokens come whole and a tokenizer that drops leading spaces drops only the first.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.told: queue.SimpleQueue[tuple[str, int] | Exception | None] = queue.SimpleQueue()
        self.ids: list[int] | None = None
        self.known = 0
        """How many of `ids` have been told as text."""
        self.tokens = self.heard = 0
        """How many the model has written, and how many make up the text that was read."""
        self.last: int | None = None
        """The newest token."""

    def put(self, value: torch.Tensor) -> None:
        if self.ids is None:  # the first that `generate` tells is the prompt
            self.ids = []
            return
        new_ids = value.flatten().tolist()
        self.ids, self.tokens, self.last = self.ids + new_ids, self.tokens + len(new_ids), new_ids[-1]
        if (new := self._new(self.ids)) and not new.endswith("�"):
            self._tell(new)

    def end(self) -> None:
        if new := self._new(self.ids or []):
            self._tell(new)
        self.told.put(None)

    def _new(self, ids: list[int]) -> str:
        before, now = (self.tokenizer.decode(part, skip_special_tokens=True) for part in (ids[: self.known], ids))
        return str(now)[len(before) :]

    def _tell(self, new: str) -> None:
        assert self.ids is not None
        self.ids, self.known = self.ids[self.known :], len(self.ids) - self.known
        self.told.put((new, self.tokens))

    def __iter__(self) -> Iterator[str]:
        while (piece := self.told.get()) is not None:
            if isinstance(piece, Exception):
                raise ModelError(f"generation failed: {type(piece).__name__}: {piece}") from piece
            text, self.heard = piece
            yield text


def until_stop(pieces: Iterable[str], stops: Sequence[str]) -> Generator[str, None, bool]:
    """Pieces up to and with the first stop string; only what may be the beginning of one is held back.

    A stop string is always whole within one piece.  The generator's value is whether there was one.
    """
    held = ""
    for piece in pieces:
        held += piece
        if cuts := [held.index(stop) + len(stop) for stop in stops if stop in held]:
            yield held[: min(cuts)]
            return True
        if safe := len(held) - _begun(held, stops):
            yield held[:safe]
            held = held[safe:]
    if held:
        yield held
    return False


def _begun(text: str, stops: Sequence[str]) -> int:
    """Length of the longest end of `text` that is the beginning of a stop string."""
    lengths = (n for stop in stops for n in range(1, min(len(stop), len(text) + 1)) if text.endswith(stop[:n]))
    return max(lengths, default=0)
