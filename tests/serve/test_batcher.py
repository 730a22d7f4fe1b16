"""Requests that arrive together share a pass; none spoils another."""

import asyncio
import math
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest

from llmray.job.errors import ModelError, RequestError
from llmray.model.generate import Stream
from llmray.tasks.base import Answer, Request
from serve.batcher import Batcher, Outcome, Pass


class Model:
    """Answers each text with itself and remembers the size of every pass."""

    def __init__(self) -> None:
        self.passes: list[int] = []

    def predict(self, requests: Sequence[Request]) -> list[Outcome]:
        self.passes.append(len(requests))
        texts = [request.inputs["text"] for request in requests]
        if "break" in texts:
            raise MemoryError("too much")
        return [RequestError("no") if text == "bad" else {"text": text} for text in texts]

    def stream(self, request: Request) -> Stream:
        words = request.inputs["text"].split()
        yield from words
        return {"tokens": len(words)}


def batcher(
    model: Model, size: int = 4, wait_s: float = 0.05, queued: int = 100, deadline_s: float = math.inf
) -> Batcher:
    return Batcher(
        model.predict,
        model.stream,
        max_batch_size=size,
        wait_s=wait_s,
        max_queued=queued,
        deadline_s=deadline_s,
    )


def ask(text: str) -> Request:
    return Request({"text": text}, {})


async def outcomes(model: Model, texts: Sequence[str]) -> list[Outcome | BaseException]:
    shared = batcher(model)
    found = await asyncio.gather(*(shared.answer([ask(text)]) for text in texts), return_exceptions=True)
    return [each if isinstance(each, BaseException) else each[0] for each in found]


def test_ten_requests_make_three_passes_of_at_most_four() -> None:
    model = Model()
    found = asyncio.run(outcomes(model, [str(n) for n in range(10)]))
    assert found == [{"text": str(n)} for n in range(10)]
    assert model.passes == [4, 4, 2]


def test_every_pass_is_told_with_how_long_its_requests_waited_and_what_was_written() -> None:
    told: list[Pass] = []
    model = Model()

    async def run() -> None:
        shared = Batcher(model.predict, model.stream, max_batch_size=2, wait_s=0.05, max_queued=9, told=told.append)
        await shared.answer([ask("a"), ask("b"), ask("c")])
        async for _ in shared.stream(ask("four words of text")):
            pass

    asyncio.run(run())
    assert [(len(each.waited_s), each.tokens) for each in told] == [(2, 0), (1, 0), (1, 4)]
    assert all(waited_s >= 0 for each in told for waited_s in (*each.waited_s, each.took_s))


def test_a_full_pass_does_not_wait() -> None:
    async def run() -> None:
        await asyncio.wait_for(batcher(Model(), wait_s=60).answer([ask("a")] * 4), 5)

    asyncio.run(run())


def test_who_is_alone_does_not_wait_for_company() -> None:
    async def run() -> None:
        shared = batcher(Model(), wait_s=60)
        for _ in range(3):
            await asyncio.wait_for(shared.answer([ask("a")]), 5)

    asyncio.run(run())


def test_those_who_came_together_wait_for_nobody_else() -> None:
    model = Model()

    async def run() -> None:
        shared = batcher(model, wait_s=60)
        for _ in range(3):
            async with asyncio.timeout(5):
                await asyncio.gather(*(shared.answer([ask(text)]) for text in "abc"))

    asyncio.run(run())
    assert model.passes == [3, 3, 3]


def test_two_who_ask_in_turns_come_to_share_a_pass() -> None:
    model = Model()

    async def client(shared: Batcher, text: str) -> None:
        for _ in range(8):
            await shared.answer([ask(text)])

    async def run() -> None:
        shared = batcher(model, wait_s=1)
        first = asyncio.create_task(client(shared, "a"))
        while not model.passes:
            await asyncio.sleep(0)
        await asyncio.gather(first, client(shared, "b"))

    asyncio.run(run())
    assert model.passes.count(2) >= 6


def test_a_bad_request_has_its_error_in_its_own_place() -> None:
    found = asyncio.run(outcomes(Model(), ["a", "bad", "c"]))
    assert found[0] == {"text": "a"}
    assert isinstance(found[1], RequestError)
    assert found[2] == {"text": "c"}


def test_a_request_that_breaks_the_model_is_found_and_the_others_are_answered() -> None:
    model = Model()
    found = asyncio.run(outcomes(model, ["a", "break", "c"]))
    assert (found[0], found[2]) == ({"text": "a"}, {"text": "c"})
    assert isinstance(found[1], ModelError)
    assert "MemoryError: too much" in str(found[1])
    assert model.passes == [3, 1, 1, 1]


def test_a_client_that_left_is_not_answered() -> None:
    async def run() -> Model:
        model = Model()
        shared = batcher(model)
        left = asyncio.create_task(shared.answer([ask("left")]))
        stayed = asyncio.create_task(shared.answer([ask("stayed")]))
        await asyncio.sleep(0)
        left.cancel()
        assert await stayed == [{"text": "stayed"}]
        return model

    assert asyncio.run(run()).passes == [1]


def test_a_stream_gives_pieces_in_order_and_leaves_its_seat() -> None:
    async def run() -> list[list[str | Answer]]:
        shared = batcher(Model(), size=1)
        return [[piece async for piece in shared.stream(ask("a b c"))] for _ in range(3)]

    assert asyncio.run(run()) == [["a", "b", "c", {"tokens": 3}]] * 3


def test_a_model_stops_writing_once_the_reader_has_left(endless: Any) -> None:
    stream, closed = endless

    async def run() -> None:
        shared = Batcher(Model().predict, stream, max_batch_size=1, wait_s=0, max_queued=1)
        for _ in range(2):
            pieces = shared.stream(ask("a"))
            assert await anext(pieces) == "on"
            await pieces.aclose()

    asyncio.run(asyncio.wait_for(run(), 10))
    assert closed.wait(10)


@pytest.mark.parametrize("count", [1, 64])
def test_a_list_is_taken_whole_by_an_idle_model(count: int) -> None:
    async def run() -> int:
        return len(await batcher(Model(), queued=1).answer([ask("a")] * count))

    assert asyncio.run(run()) == count


def test_a_model_that_breaks_while_nobody_asks_is_no_longer_healthy() -> None:
    async def run() -> None:
        shared = batcher(Model())
        await shared.check(ask("fine"))
        with pytest.raises(ModelError, match=r"no longer answers a plain request: .*too much"):
            await shared.check(ask("break"))
        await shared.check(ask("fine"))

    asyncio.run(run())


class Slow(Model):
    """Takes 0.1 s, and longer while it is held."""

    def __init__(self) -> None:
        super().__init__()
        self.free = threading.Event()
        self.free.set()

    def predict(self, requests: Sequence[Request]) -> list[Outcome]:
        time.sleep(0.1)
        self.free.wait()
        return super().predict(requests)


@pytest.mark.parametrize(("deadline_s", "within_s"), [(0.2, math.inf), (60, 0.2)])
def test_what_could_not_be_answered_in_time_is_refused_at_once(deadline_s: float, within_s: float) -> None:
    model = Slow()

    async def run() -> None:
        shared = batcher(model, size=2, wait_s=0, deadline_s=deadline_s)
        await shared.answer([ask("to learn how long it takes")])
        model.free.clear()
        asked = [asyncio.create_task(shared.answer([ask("runs")]))]
        while not shared.works:
            await asyncio.sleep(0.01)
        for text in ("waits", "waits too"):
            shared.require_time(within_s=within_s)  # the next pass takes it along
            asked.append(asyncio.create_task(shared.answer([ask(text)])))
            await asyncio.sleep(0)
        with pytest.raises(RequestError, match=r"2 requests .*; an answer would take [\d.]+ s, not 0\.2;") as late:
            shared.require_time(within_s=within_s)
        assert late.value.status == 503
        model.free.set()
        await asyncio.gather(*asked)
        shared.require_time(within_s=within_s)

    asyncio.run(run())
    assert model.passes == [1, 1, 2]


def test_a_model_that_hangs_or_answers_nobody_is_no_longer_healthy() -> None:
    held, model = threading.Event(), Model()

    async def run() -> None:
        shared = Batcher(lambda _: held.wait() and [], model.stream, max_batch_size=1, wait_s=0, max_queued=9)
        asking = asyncio.create_task(shared.answer([ask("never")]))
        await asyncio.sleep(0.05)
        await shared.check(ask("fine"))  # it may be a long one
        shared.deadline_s = 0.01
        with pytest.raises(ModelError, match=r"has not answered for 0\.01 s"):
            await shared.check(ask("fine"))
        held.set()
        asking.cancel()

    asyncio.run(run())


def test_what_has_just_answered_and_what_only_refuses_is_healthy_without_being_asked() -> None:
    async def run() -> list[int]:
        model = Model()
        shared = batcher(model)
        for text in ("fine", "bad"):
            await shared.answer([ask(text)])
            await shared.check(ask("break"))
        return model.passes

    assert asyncio.run(run()) == [1, 1]
