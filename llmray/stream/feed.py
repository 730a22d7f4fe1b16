"""One worker's batches from prepared stores, from any position of their order, while the next rows are being read.

It does not know what is learned from them, nor of Ray: it runs inside the worker.  Held in memory are the worker's rows
of two windows (each of 64 row groups of 1 MB, all sources together), and the compressed bytes of the one being read.
"""

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from llmray.corpus.order import Ints, Mixture, Order, Share, Window
from llmray.corpus.record import Columns
from llmray.corpus.source import is_store
from llmray.job.data import Source
from llmray.job.errors import DataError
from llmray.stream.blocks import checked
from llmray.stream.groups import Groups
from llmray.stream.steps import rows_of
from llmray.tasks.base import Task

Row: TypeAlias = tuple[Any, ...]
"""A row's values, in the order of its store's columns."""

WINDOW_GROUPS = 64
"""Row groups among whose rows is shuffled, all sources together."""


@dataclass(frozen=True)
class Portion:
    """Stores that are read as one, each row once an epoch, and their weight in a mixture of portions."""

    stores: tuple[str, ...]
    weight: float = 1.0
    source: int | None = None
    """Only what was prepared of this source of the stores' job."""


def portions_of(sources: Sequence[Source], task: Task) -> tuple[Portion, ...]:
    """Sources that are prepared stores: by their weights, or those that the only one was prepared with, without any as
    one; nothing if none of them is a store.

    Raises `DataError` where some are stores and others are not, or one was made for another task.
    """
    bare = [source.path for source in sources if not is_store(source)]
    if len(bare) == len(sources):
        return ()
    if bare:
        raise DataError(f"{bare[0]}: is no prepared store although other sources are; prepare it too")
    manifests = [checked(source, task) for source in sources]
    given = [source["weight"] for source in manifests[0].get("sources", [])]
    if len(sources) == 1 and given and all(given):
        return tuple(Portion((sources[0].path,), weight, number) for number, weight in enumerate(given))
    weighed = tuple(Portion((source.path,), source.weight) for source in sources if source.weight is not None)
    return weighed or (Portion(tuple(source.path for source in sources)),)


class Feed:
    """Columns of `batch_rows` rows, again from position `start` (rows used by all workers) each time it is iterated.

    Which rows a batch of all workers together holds does not depend on `world`.  Without `stop`, a position too, there
    is no end.  Raises `DataError` naming the file that is not as it was written.
    """

    def __init__(
        self,
        portions: Sequence[Portion],
        batch_rows: int,
        *,
        rank: int = 0,
        world: int = 1,
        seed: int = 0,
        shuffle: bool = True,
        start: int = 0,
        stop: int | None = None,
    ) -> None:
        self._groups = [Groups(portion.stores, portion.source) for portion in portions]
        for portion, groups in zip(portions, self._groups, strict=True):
            if groups.columns != self._groups[0].columns:
                one, other = portion.stores[0], portions[0].stores[0]
                raise DataError(f"{one}: other columns than {other}; prepare both for one task")
        window = max(1, WINDOW_GROUPS // len(portions))
        self._orders = [Order(g.rows, window, shuffle, seed, i) for i, g in enumerate(self._groups)]
        self._mixture = Mixture([portion.weight for portion in portions])
        self._share = Share(batch_rows, rank, world, start, stop)
        told = [(groups.identity, portion.weight) for groups, portion in zip(self._groups, portions, strict=True)]
        self.identity = hashlib.sha256(repr((told, window, shuffle, seed)).encode()).hexdigest()
        """What a position means: equal in two feeds whose orders are equal."""

    @property
    def epoch_rows(self) -> int:
        """Rows of all portions together."""
        return sum(order.rows for order in self._orders)

    def written(self, start: int, stop: int) -> dict[str, list[int]]:
        """Which rows of which files, from 1 on, lie at these positions."""
        found: dict[str, list[int]] = {}
        windows: dict[int, Window] = {}
        positions = np.arange(start, stop)
        for position, source in zip(positions.tolist(), self._mixture.sources(positions).tolist(), strict=True):
            at = self._mixture.before(source, position)
            if source not in windows or at >= windows[source].stop:
                windows[source] = self._orders[source].window(at)
            window = windows[source]
            path, row = self._groups[source].written(window.groups, int(window.rows[at - window.start]))
            found.setdefault(path, []).append(row)
        return found

    def __iter__(self) -> Iterator[Columns]:
        names = list(self._groups[0].columns)
        pool = ThreadPoolExecutor(1, "feed")
        try:
            rows = [chain.from_iterable(self._windows(source, pool)) for source in range(len(self._orders))]
            for positions in self._share.batches():
                batch = [next(rows[source]) for source in self._mixture.sources(positions)]
                yield {name: list(values) for name, values in zip(names, zip(*batch, strict=True), strict=True)}
        finally:
            pool.shutdown(cancel_futures=True)

    def _windows(self, source: int, pool: ThreadPoolExecutor) -> Iterator[list[Row]]:
        """The worker's rows of one window after another; the first is being read from now on."""
        reads = (pool.submit(self._read, source, window) for window in self._wanted(source))
        return _ahead(deque(islice(reads, 1)), reads)

    def _wanted(self, source: int) -> Iterator[Window]:
        share, order = self._share, self._orders[source]
        position = self._mixture.before(source, share.start)
        while share.stop is None or position < self._mixture.before(source, share.stop):
            window = order.window(position)
            yield window
            position = window.stop

    def _read(self, source: int, window: Window) -> list[Row]:
        places = self._mixture.positions(source, np.arange(window.start, window.stop))
        mine = window.rows[self._share.holds(places)]
        written = np.sort(mine)
        tables, begin, rows = self._groups[source].read(window.groups), 0, list[Row]()
        for table in tables:
            first, last = np.searchsorted(written, (begin, begin + table.num_rows))
            rows += self._rows(table, written[first:last] - begin)
            begin += table.num_rows
        return [rows[i] for i in np.argsort(np.argsort(mine))]

    def _rows(self, table: pa.Table, wanted: Ints) -> Iterator[Row]:
        """Some rows of a row group, which then do not keep the others in memory."""
        columns = rows_of(table if len(wanted) == table.num_rows else table.take(pa.array(wanted)))
        return zip(*(columns[name] for name in self._groups[0].columns), strict=True)


def _ahead(started: deque[Future[list[Row]]], reads: Iterator[Future[list[Row]]]) -> Iterator[list[Row]]:
    """What reads give, of which one more is always under way."""
    while started:
        ready = started.popleft().result()
        started.extend(islice(reads, 1))
        yield ready
