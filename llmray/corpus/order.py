"""The order in which the rows of prepared stores are learned from, found from any position without what came before.

It does not know what a row holds or how it is read.  One whole number, the rows used so far, is all that a run must
remember to go on: the order depends neither on the number of workers nor on where it was broken off.

Shuffling has two levels, like MosaicML Streaming's py1b
(https://docs.mosaicml.com/projects/streaming/en/stable/dataset_configuration/shuffling.html): the row groups of all
files are put in a random order, and the rows of every `window_groups` of them that follow one another are mixed
completely.  With 64 groups of 1024 rows, a batch of 32 draws from about 25 places of the corpus, and rows that were
neighbours end up some 22,000 rows apart on average.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Ints: TypeAlias = NDArray[np.int64]

CYCLE = 100_000
"""Rows after which sources take turns as before; weights are rounded to one in so many."""


@dataclass(frozen=True)
class Window:
    """A stretch of an order whose rows lie in a few row groups."""

    start: int
    """Position of its first row, counted through all epochs."""
    groups: Ints
    """Numbers of the row groups."""
    rows: Ints
    """Its rows in their order, each by its place when the groups are laid end to end."""

    @property
    def stop(self) -> int:
        """Position after its last row."""
        return self.start + len(self.rows)


@dataclass(frozen=True)
class Order:
    """The rows of one source, epoch after epoch, every row once in each."""

    group_rows: Ints
    """Rows of each row group, of which there is at least one."""
    window_groups: int = 64
    shuffle: bool = True
    """False: as they were written."""
    seed: int = 0
    source: int = 0
    """Which source of a mixture it is: each has its own order."""

    @cached_property
    def rows(self) -> int:
        """Rows of an epoch."""
        return int(self.group_rows.sum())

    def window(self, position: int) -> Window:
        """The window that holds a position, which may lie in any epoch."""
        epoch, offset = divmod(position, self.rows)
        groups = self._permutation(len(self.group_rows), epoch, 0)
        ends = np.cumsum(self.group_rows[groups])
        number = int(np.searchsorted(ends, offset, side="right")) // self.window_groups
        first = number * self.window_groups
        begin = int(ends[first - 1]) if first else 0
        chosen = groups[first : first + self.window_groups]
        rows = self._permutation(int(self.group_rows[chosen].sum()), epoch, 1 + number)
        return Window(epoch * self.rows + begin, chosen, rows)

    def _permutation(self, length: int, epoch: int, what: int) -> Ints:
        """Drawn from raw bits, which numpy promises never to change: https://numpy.org/neps/nep-0019-rng-policy.html"""
        if not self.shuffle:
            return np.arange(length)
        keys = np.random.PCG64([self.seed, self.source, epoch, what]).random_raw(length)
        return np.argsort(keys, kind="stable")


class Mixture:
    """Which source each position takes its row from: in proportion to the weights over any stretch, without chance.

    Row i of a source that has n in a cycle falls due at (i + 1/2) / n of it, and the cycle is all rows by when they are
    due (Webster's method, https://en.wikipedia.org/wiki/Sainte-Lagu%C3%AB_method).  Of k sources, one with the share w
    has at most 1 + k·w rows too many or too few in any stretch.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        shares = np.asarray(weights, dtype=float) / math.fsum(weights)
        self._counts = np.maximum(1, np.rint(shares * CYCLE)).astype(np.int64)
        due = np.concatenate([(np.arange(count) + 0.5) / count for count in self._counts])
        self._turns = np.repeat(np.arange(len(weights)), self._counts)[np.argsort(due, kind="stable")]
        self._slots = [np.flatnonzero(self._turns == source) for source in range(len(weights))]

    def sources(self, positions: Ints) -> Ints:
        """Number of the source of each position."""
        return self._turns[positions % len(self._turns)]

    def before(self, source: int, position: int) -> int:
        """Rows of a source that lie before a position."""
        cycle, slot = divmod(position, len(self._turns))
        return int(cycle * self._counts[source] + np.searchsorted(self._slots[source], slot))

    def positions(self, source: int, rows: Ints) -> Ints:
        """Where the rows of a source, counted through all its epochs, lie in the mixture."""
        cycle, turn = np.divmod(rows, self._counts[source])
        return cycle * len(self._turns) + self._slots[source][turn]


@dataclass(frozen=True)
class Share:
    """What one worker takes of the positions from `start` on: its slice of every batch of `batch_rows` a worker.

    Batches run across the ends of epochs, so that nothing is dropped or repeated; the last before `stop` may be short.
    """

    batch_rows: int
    rank: int = 0
    world: int = 1
    start: int = 0
    stop: int | None = None
    """None: without end."""

    @property
    def end(self) -> float:
        """Position at which it stops."""
        return math.inf if self.stop is None else self.stop

    def batches(self) -> Iterator[Ints]:
        """Positions of each of the worker's batches."""
        for first in itertools.count(self.start + self.rank * self.batch_rows, self.batch_rows * self.world):
            if first >= self.end:
                return
            yield np.arange(first, min(first + self.batch_rows, self.end), dtype=np.int64)

    def holds(self, positions: Ints) -> NDArray[np.bool_]:
        """Which positions are the worker's."""
        turn = (positions - self.start) % (self.batch_rows * self.world) // self.batch_rows
        return (positions >= self.start) & (positions < self.end) & (turn == self.rank)
