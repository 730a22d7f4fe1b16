"""Copies among all the clean documents of a corpus, by the keys that were written beside them.

It does not know what makes two documents copies (`dedup`), nor reads a text but to show it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import pyarrow.parquet as pq

from llmray.corpus.dedup import duplicates
from llmray.corpus.refine import KEYS
from llmray.corpus.tally import EXCERPT_CHARS
from llmray.store import place

SHOWN = 10


@dataclass(frozen=True)
class Copies:
    """`dropped` documents and the one `kept` in place of each, (dropped, 2), numbered through all `paths`."""

    paths: Sequence[str]
    ends: tuple[int, ...]
    """Documents up to the end of each file."""
    dropped: np.ndarray

    @property
    def by_file(self) -> list[tuple[int, ...]]:
        """For each file the rows to leave out."""
        rows, starts = self.dropped[:, 0], (0, *self.ends[:-1])
        return [
            tuple((rows[np.searchsorted(rows, start) : np.searchsorted(rows, end)] - start).tolist())
            for start, end in zip(starts, self.ends, strict=True)
        ]

    def clusters(self) -> list[dict[str, object]]:
        """The documents with most copies: how many, and how each begins."""
        most = Counter(self.dropped[:, 1].tolist()).most_common(SHOWN)
        return [{"copies": count, "text": self._text(number)} for number, count in most]

    def _text(self, number: int) -> str:
        at = int(np.searchsorted(self.ends, number, side="right"))
        row = number - (0, *self.ends)[at]
        with place.open_file(self.paths[at]) as file:
            opened = pq.ParquetFile(file)
            for group in range(opened.num_row_groups):
                rows = opened.metadata.row_group(group).num_rows
                if row < rows:
                    return str(opened.read_row_group(group, ["text"])["text"][row])[:EXCERPT_CHARS]
                row -= rows
        raise IndexError(number)


def found_in(paths: Sequence[str]) -> Copies:
    """Copies among the documents of files that `Refine` wrote; the first of each, in the files' order, stays."""
    keys = [_keys(path) for path in paths]
    ends = tuple(accumulate(len(some) for some in keys))
    together = np.concatenate(keys) if keys else np.empty((0, 1), np.uint64)
    return Copies(paths, ends, duplicates(together, np.arange(len(together))))


def _keys(path: str) -> np.ndarray:
    with place.open_file(path) as file:
        column = pq.read_table(file, columns=[KEYS])[KEYS].combine_chunks()
    return column.values.to_numpy().reshape(len(column), -1)
