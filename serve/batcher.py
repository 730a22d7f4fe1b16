"""Gathers requests that arrive together into one pass of the model, off the event loop, and bounds the queue.

It does not know HTTP, nor what a request means.

Ray's `@serve.batch` closes a batch a fixed time after its first item even while the model is busy, and lets one
failing item fail its whole batch; here a batch is closed when the model is free, and a failed one is tried again
item by item.
"""

import asyncio
import math
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import monotonic
from typing import TypeAlias

from llmray.job.errors import LlmrayError, ModelError, RequestError
from llmray.model.generate import Stream
from llmray.tasks.base import Answer, Request

Outcome: TypeAlias = Answer | RequestError
Waiting: TypeAlias = tuple[Request, "asyncio.Future[Outcome]", float]
"""A request, where its answer goes, and when it came."""

MARGIN = 1.25
"""How much longer than foretold it may take: better refused at once than given up at the deadline."""
FORGETS = 0.98
"""What is left, after a second of work, of the longest pass, which foretells the next ones: half of it after half a
minute, so that a flood meets what was learned under load, and an odd pass is forgotten."""


@dataclass(frozen=True)
class Pass:
    """What one pass of the model did."""

    waited_s: tuple[float, ...]
    """Of each of its requests, from its arrival on."""
    took_s: float
    tokens: int
    """Written, where the model writes."""


class Batcher:
    """One model's queue.  Lives on one event loop; the model runs in one thread of its own."""

    def __init__(
        self,
        predict: Callable[[Sequence[Request]], Sequence[Outcome]],
        stream: Callable[[Request], Stream],
        *,
        max_batch_size: int,
        wait_s: float,
        max_queued: int,
        deadline_s: float = math.inf,
        told: Callable[[Pass], object] = lambda done: None,
    ) -> None:
        self.predict, self.stream_of, self.told = predict, stream, told
        self.max_batch_size, self.wait_s, self.max_queued = max_batch_size, wait_s, max_queued
        self.deadline_s = deadline_s
        self.queue: deque[Waiting] = deque()
        self.arrived = asyncio.Event()
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self.writers = ThreadPoolExecutor(max_batch_size, thread_name_prefix="stream")
        self.seats = asyncio.Semaphore(max_batch_size)
        self.streams_waiting = 0
        self.together = 0
        """Requests of the last pass."""
        self.took_s = self.longest_s = 0.0
        """Of the last pass, and of those before it at most."""
        self.began: float | None = None
        """When the pass began that runs."""
        self.worker: asyncio.Task[None] | None = None
        self.works, self.sound = False, True
        """Whether the model is at work, and has answered since the last `check`, or before it came here."""
        self.owing_since: float | None = None
        """When it was first asked of all the times that it then did not answer."""

    async def answer(self, requests: Sequence[Request]) -> list[Outcome]:
        """Answer requests in order.  Raises `RequestError` (503) when they do not fit into the queue or come too late.

        When it is cancelled, those that still wait are never run.
        """
        if self.queue:
            self.require_room(len(requests))
            self.require_time(len(requests))
        self.worker = self.worker or asyncio.create_task(self._work())
        futures = [asyncio.get_running_loop().create_future() for _ in requests]
        self.queue.extend((request, future, monotonic()) for request, future in zip(requests, futures, strict=True))
        self.arrived.set()
        try:
            return await asyncio.gather(*futures)
        except asyncio.CancelledError:
            self.queue = deque(waiting for waiting in self.queue if not waiting[1].done())
            raise

    async def stream(self, request: Request) -> AsyncGenerator[str | Answer, None]:
        """Pieces of text as the model writes them, then the rest of the answer; it stops soon after the reader does."""
        self.require_room()
        self.streams_waiting += 1
        came = monotonic()
        try:
            await self.seats.acquire()
        finally:
            self.streams_waiting -= 1
        began = monotonic()
        loop, left = asyncio.get_running_loop(), threading.Event()
        written: asyncio.Queue[str | Answer | LlmrayError] = asyncio.Queue()
        writing = loop.run_in_executor(
            self.writers, self._write, request, left, lambda piece: loop.call_soon_threadsafe(written.put_nowait, piece)
        )
        writing.add_done_callback(lambda _: self.seats.release())
        try:
            while not isinstance(piece := await written.get(), dict):
                if isinstance(piece, LlmrayError):
                    raise piece
                yield piece
            self.told(Pass((began - came,), monotonic() - began, _tokens([piece])))
            yield piece
        finally:
            left.set()

    def _write(
        self, request: Request, left: threading.Event, tell: Callable[[str | Answer | LlmrayError], object]
    ) -> None:
        try:
            pieces = self.stream_of(request)
            while not left.is_set():
                tell(next(pieces))
            pieces.close()
        except StopIteration as end:
            tell(end.value)
        except LlmrayError as error:
            tell(error)
        except Exception as error:  # noqa: BLE001 the per-request guard: reported to the one it concerns
            tell(_broken(error))

    async def check(self, example: Request) -> None:
        """Raise `ModelError` where the model has answered nobody within the deadline, or, left alone, not the example.

        It is spared that where it has just answered others.
        """
        if self.works and self.owing_since and monotonic() - self.owing_since > self.deadline_s:
            raise ModelError(f"the model has not answered for {self.deadline_s:g} s")
        if not (self.sound or self.works):
            [outcome] = await self._answered([example])
            if isinstance(outcome, Exception):
                raise ModelError(f"the model no longer answers a plain request: {outcome}")
        self.sound = False

    def require_room(self, count: int = 1) -> None:
        """Raises `RequestError` (503) when so many more requests do not fit into the queue."""
        waiting = len(self.queue) + self.streams_waiting
        if waiting + count > self.max_queued:
            raise RequestError(f"{waiting} requests are waiting; try again soon", 503)

    def require_time(self, count: int = 1, within_s: float = math.inf) -> None:
        """Raises `RequestError` (503) when so many more requests would be answered after the deadline or, where that is
        sooner, `within_s`: judged by the last passes.  What the next pass can take along is never too late.
        """
        passes, within_s = math.ceil((len(self.queue) + count) / self.max_batch_size), min(within_s, self.deadline_s)
        ran_s = monotonic() - self.began if self.began else 0.0
        longest_s = max(ran_s, self.longest_s)
        left_s = longest_s - ran_s if self.began else 0.0
        needed_s = (left_s + passes * longest_s) * MARGIN
        if passes > 1 and needed_s > within_s:
            said = f"{len(self.queue)} requests are waiting; an answer would take {needed_s:.2g} s, not {within_s:g}"
            raise RequestError(f"{said}; try again soon", 503)

    async def _work(self) -> None:
        while True:
            if not (batch := await self._gather()):
                continue
            self.began = began = monotonic()
            outcomes = await self._answered([request for request, _, _ in batch])
            self.took_s, self.began = monotonic() - began, None
            self.longest_s = max(self.took_s, self.longest_s * FORGETS**self.took_s)
            self.told(Pass(tuple(began - came for *_, came in batch), self.took_s, _tokens(outcomes)))
            for (_, future, _), outcome in zip(batch, outcomes, strict=True):
                if future.done():
                    continue
                if isinstance(outcome, ModelError):
                    future.set_exception(outcome)
                else:
                    future.set_result(outcome)

    async def _gather(self) -> list[Waiting]:
        """Wait for a first request and a moment for those that may join it: as many as wait already and as many as the
        last pass had, whose clients may ask again.  Leave out those whose client has gone."""
        expected = min(len(self.queue) + self.together, self.max_batch_size)
        await self._until_arrived(None)
        deadline = asyncio.get_running_loop().time() + self.wait_s
        while len(self.queue) < expected and (left := deadline - asyncio.get_running_loop().time()) > 0:
            await self._until_arrived(left)
        taken = [self.queue.popleft() for _ in range(min(len(self.queue), self.max_batch_size))]
        if self.queue:
            self.arrived.set()
        self.together = len(taken)
        return [each for each in taken if not each[1].done()]

    async def _until_arrived(self, timeout_s: float | None) -> None:
        try:
            await asyncio.wait_for(self.arrived.wait(), timeout_s)
            self.arrived.clear()
        except TimeoutError:
            return

    async def _answered(self, requests: Sequence[Request]) -> list[Outcome | ModelError]:
        """Outcomes, and it is kept whether there was one that is no fault of the model."""
        self.works, self.owing_since = True, self.owing_since or monotonic()
        outcomes = await self._ask(requests)
        self.works = False
        if any(not isinstance(outcome, ModelError) and getattr(outcome, "status", 0) < 500 for outcome in outcomes):
            self.sound, self.owing_since = True, None
        return outcomes

    async def _ask(self, requests: Sequence[Request]) -> list[Outcome | ModelError]:
        try:
            return list(await asyncio.get_running_loop().run_in_executor(self.thread, self.predict, requests))
        except Exception as error:  # noqa: BLE001 the per-request guard: reported to the one it concerns
            if len(requests) > 1:
                return [outcome for request in requests for outcome in await self._ask([request])]
            return [_broken(error)]


def _tokens(outcomes: Sequence[Outcome | ModelError]) -> int:
    return sum(outcome.get("tokens", 0) for outcome in outcomes if isinstance(outcome, dict))


def _broken(error: Exception) -> ModelError:
    return ModelError(f"the model failed on this request: {type(error).__name__}: {error}")
