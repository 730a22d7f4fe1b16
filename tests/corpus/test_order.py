"""Every row once an epoch, in an order that neither the workers' number nor any interruption changes."""

import random
from collections import Counter
from itertools import islice, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmray.corpus.order import Mixture, Order, Share, Window

SEEDS = st.integers(0, 2**40)
ORDERS = st.builds(
    lambda rows, window, shuffle, seed: Order(np.array(rows), window, shuffle, seed),
    st.lists(st.integers(0, 9), min_size=1, max_size=20).filter(any),
    st.integers(1, 6),
    st.booleans(),
    SEEDS,
)
WEIGHTS = st.lists(st.floats(0.01, 1), min_size=1, max_size=6)


def rows_of(order: Order, window: Window) -> list[int]:
    """A window's rows, numbered through the store."""
    begins = np.concatenate([[0], np.cumsum(order.group_rows)])
    laid = [row for group in window.groups for row in range(begins[group], begins[group + 1])]
    return [laid[i] for i in window.rows]


def rows(order: Order, start: int, stop: int) -> list[int]:
    """Rows at the positions from `start` up to `stop`."""
    found: list[int] = []
    at = start
    while at < stop:
        window = order.window(at)
        found += rows_of(order, window)[at - window.start : stop - window.start]
        at = window.stop
    return found


@settings(deadline=None)
@given(ORDERS, st.integers(0, 3))
def test_an_epoch_holds_every_row_once(order, epoch):
    found = rows(order, epoch * order.rows, (epoch + 1) * order.rows)
    assert sorted(found) == list(range(order.rows))
    if not order.shuffle:
        assert found == sorted(found)


@settings(deadline=None)
@given(ORDERS, st.data())
def test_any_position_is_found_without_what_came_before(order, data):
    whole = rows(order, 0, 3 * order.rows)
    start = data.draw(st.integers(0, 3 * order.rows - 1))
    assert rows(order, start, 3 * order.rows) == whole[start:]
    window = order.window(start)
    assert window.start <= start < window.stop
    assert len(window.groups) <= order.window_groups


def test_the_order_is_the_seeds_and_the_epochs_own():
    def first(seed: int, epoch: int, source: int = 0) -> list[int]:
        order = Order(np.array([10] * 10), 4, True, seed, source)
        return rows(order, epoch * 100, epoch * 100 + 100)

    assert first(1, 0) == first(1, 0)
    distinct = [first(1, 0), first(1, 1), first(2, 0), first(2, 1), first(1, 0, source=1)]
    assert all(one != other for i, one in enumerate(distinct) for other in distinct[:i])


def test_the_order_is_the_same_on_every_machine_and_with_every_numpy():
    """Groups hold rows 0-2, 3, 4-7 and 8-9; two make a window: the last and the first, then the other two."""
    assert rows(Order(np.array([3, 1, 4, 2]), 2, True, 7), 0, 10) == [1, 9, 2, 0, 8, 3, 4, 7, 5, 6]


def test_a_window_mixes_rows_from_all_over_the_corpus():
    """1000 groups of 100 rows: 64 of them, from all tenths of the corpus, have a part in the first 640 rows."""
    order = Order(np.full(1000, 100))
    groups = {row // 100 for row in rows(order, 0, 640)}
    assert len(groups) == 64
    assert {group // 100 for group in groups} == set(range(10))
    apart = [abs(a - b) for a, b in pairwise(np.argsort(order.window(0).rows))]
    assert np.mean(apart) == pytest.approx(6400 / 3, rel=0.05)


@settings(deadline=None)
@given(st.integers(0, 50), st.integers(1, 5), st.sampled_from([1, 2, 3, 4]), st.none() | st.integers(0, 90))
def test_workers_share_every_batch_and_know_their_own(start, twelfth, world, stop):
    """12, 24 … rows a batch: the same ones whether one worker takes them or four."""
    batch = 12 * twelfth
    shares = [Share(batch // world, rank, world, start, stop) for rank in range(world)]
    taken = [list(islice(share.batches(), 5)) for share in shares]
    together = [i for number in range(5) for found in taken for part in found[number : number + 1] for i in part]
    end = start + 5 * batch if stop is None else max(start, min(stop, start + 5 * batch))
    assert together == list(range(start, end))
    for share, batches in zip(shares, taken, strict=True):
        assert np.flatnonzero(share.holds(np.arange(end))).tolist() == [i for found in batches for i in found]


@settings(deadline=None)
@given(ORDERS, st.lists(st.tuples(st.sampled_from([1, 2, 3, 4]), st.integers(1, 6), st.integers(0, 6)), max_size=12))
def test_no_row_is_lost_or_repeated_however_often_a_run_is_killed(order, attempts):
    assert_unbroken(order, attempts)


def test_a_hundred_kills():
    draw = random.Random(0)
    order = Order(np.array([draw.randint(1, 30) for _ in range(200)]), 8, True, 5)
    assert_unbroken(order, [(draw.randint(1, 4), draw.randint(1, 20), draw.randint(0, 20)) for _ in range(100)])


def assert_unbroken(order: Order, attempts: list[tuple[int, int, int]]) -> None:
    """Each attempt: so many workers take so many batches of 12 rows; the last checkpoint was after so many of them."""
    position, learned = 0, []
    for world, batches, kept in attempts:
        shares = [Share(12 // world, rank, world, position) for rank in range(world)]
        taken = [[i for part in islice(share.batches(), min(batches, kept)) for i in part] for share in shares]
        learned += sorted(i for part in taken for i in part)
        position += 12 * min(batches, kept)
    assert learned == list(range(position))
    counts = Counter(rows(order, 0, position))
    epochs, more = divmod(position, order.rows)
    assert Counter(counts[row] for row in range(order.rows)) == Counter(
        [epochs + 1] * more + [epochs] * (order.rows - more)
    )


def test_sources_take_turns_in_proportion():
    assert Mixture([3, 1]).sources(np.arange(8)).tolist() == [0, 0, 1, 0, 0, 0, 1, 0]
    assert Mixture([5]).sources(np.arange(3)).tolist() == [0, 0, 0]


@settings(deadline=None)
@given(WEIGHTS, st.integers(0, 10**12), st.integers(1, 64))
def test_shares_are_within_one_percent_of_the_weights_over_any_thousand_batches(weights, start, batch):
    found = np.bincount(Mixture(weights).sources(np.arange(start, start + 1000 * batch)), minlength=len(weights))
    assert np.abs(found / found.sum() - np.array(weights) / sum(weights)).max() < 0.01


@settings(deadline=None)
@given(WEIGHTS, st.integers(0, 10**12))
def test_a_mixture_resumes_at_any_position(weights, start):
    """Rows that each source gave before a position, and where its next one lies, without going through them."""
    mixture = Mixture(weights)
    stretch = np.arange(start, start + 500)
    before = [mixture.before(source, start) for source in range(len(weights))]
    assert sum(before) == start
    for source, given_rows in enumerate(before):
        lies = stretch[mixture.sources(stretch) == source]
        assert mixture.positions(source, given_rows + np.arange(len(lies))).tolist() == lies.tolist()
