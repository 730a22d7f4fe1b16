"""Row groups of prepared stores, read by their bytes, many at once, and checked against the manifest.

It does not know who wants which.  A group needs two reads, its own bytes and the file's footer, so the cost of a row
does not grow with the file or the store that it lies in.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from llmray.corpus.order import Ints
from llmray.job.errors import DataError, StoreError
from llmray.store import place
from llmray.store.place import Span
from llmray.stream.blocks import BLOCKS, MAGIC_BYTES, manifest


class Groups:
    """The row groups of stores, numbered through all their files."""

    def __init__(self, stores: Sequence[str], source: int | None = None) -> None:
        """Read the manifests; `source`: only what was prepared of that one.  Raises `DataError`."""
        found = {store: manifest(store) for store in stores}
        self.columns: dict[str, str] = found[stores[0]]["schema"]
        self._files = [
            (place.join(store, BLOCKS, file["name"]), file)
            for store in stores
            for file in found[store]["shards"]
            if source in (None, file.get("source"))
        ]
        for store in stores:
            if found[store]["schema"] != self.columns:
                raise DataError(
                    f"{store}: its columns are {found[store]['schema']}, those of {stores[0]} {self.columns}"
                )
        for path, file in self._files:
            if "groups" not in file:
                raise DataError(f"{path}: its row groups are not in the manifest; prepare the store again")
        self._ends = np.cumsum([len(file["groups"]) for _, file in self._files])
        self.rows = np.array([group["rows"] for _, file in self._files for group in file["groups"]], dtype=np.int64)
        if not self.rows.sum():
            raise DataError(f"{', '.join(stores)}: there are no rows")

    @property
    def identity(self) -> str:
        """Hash of all content, in its order."""
        return hashlib.sha256("".join(file["sha256"] for _, file in self._files).encode()).hexdigest()

    def read(self, numbers: Ints) -> Iterator[pa.Table]:
        """Each group's rows.  Raises `DataError` naming the file that is not as it was written."""
        places = [self._place(int(number)) for number in numbers]
        spans = [(_group(*found), _footer(*found[:2])) for found in places]
        try:
            held = place.read_spans({span for pair in spans for span in pair})
        except StoreError as error:
            raise DataError(f"{error}; check the storage, or prepare the store again") from error
        for found, (group, footer) in zip(places, spans, strict=True):
            yield _table(*found, held[group], held[footer])

    def written(self, numbers: Ints, row: int) -> tuple[str, int]:
        """The file that holds a row of these groups, laid end to end, and which row of the file it is, from 1 on."""
        ends = np.cumsum(self.rows[numbers])
        at = int(np.searchsorted(ends, row, side="right"))
        path, file, number = self._place(int(numbers[at]))
        end = sum(group["rows"] for group in file["groups"][: number + 1])
        return path, end - int(ends[at] - row) + 1

    def _place(self, number: int) -> tuple[str, dict[str, Any], int]:
        """Path of a group's file, the file's line of the manifest, and the group's number in it."""
        at = int(np.searchsorted(self._ends, number, side="right"))
        path, file = self._files[at]
        return path, file, number - int(self._ends[at]) + len(file["groups"])


def _group(path: str, file: dict[str, Any], number: int) -> Span:
    start = MAGIC_BYTES + sum(group["bytes"] for group in file["groups"][:number])
    return Span(path, start, start + file["groups"][number]["bytes"])


def _footer(path: str, file: dict[str, Any]) -> Span:
    start = MAGIC_BYTES + sum(group["bytes"] for group in file["groups"])
    return Span(path, start, start + file["footer_bytes"])


def _table(path: str, file: dict[str, Any], number: int, group: bytes, footer: bytes) -> pa.Table:
    if hashlib.sha256(group + footer).hexdigest() != file["groups"][number]["sha256"]:
        raise DataError(f"{path}: is not what was written there; remove the store and prepare it again")
    mine, last = _group(path, file, number), _footer(path, file)
    sparse = np.zeros(last.stop, dtype=np.uint8)  # the file but for its other groups, whose zeros take no memory
    for span, data in ((mine, group), (last, footer)):
        sparse[span.start : span.stop] = np.frombuffer(data, dtype=np.uint8)
    return pq.ParquetFile(pa.BufferReader(pa.py_buffer(sparse))).read_row_group(number, use_threads=False)
