"""Parquet → rows, by row groups.  It does not know which of them a task reads."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from llmray.corpus.damage import CUT, require_content
from llmray.corpus.files import not_utf8
from llmray.corpus.record import Bad
from llmray.corpus.rows import Row
from llmray.store import place

ROWS = 256
"""Rows that are decoded at once."""
ERRORS = (pa.ArrowException, OSError, ValueError)
"""What Arrow raises for damage, and storage beneath it."""


def row_groups(path: str) -> list[tuple[int, int]]:
    """Rows and bytes of each row group; none of a damaged file, whose reader says what is wrong."""
    try:
        with _opened(path) as file:
            groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
            return [(group.num_rows, group.total_byte_size) for group in groups]
    except ERRORS as error:
        require_content(path, error)
        return []


def rows(path: str, groups: Sequence[int] | None = None) -> Iterator[Row | Bad]:
    """Rows of the row groups given, or of all; one `Bad` for the rest of a damaged group."""
    try:
        with _opened(path) as file:
            for group in range(file.metadata.num_row_groups) if groups is None else groups:
                before = sum(file.metadata.row_group(i).num_rows for i in range(group))
                yield from _group(path, file, group, before)
    except ERRORS as error:
        require_content(path, error)
        yield Bad(path, CUT, f"not a Parquet file that can be read: {error}")


def _group(path: str, file: pq.ParquetFile, group: int, number: int) -> Iterator[Row | Bad]:
    """Rows of one row group, which has `number` rows before it."""
    try:
        for batch in file.iter_batches(ROWS, [group]):
            for row in _values(batch):
                number += 1
                where = f"{path}, row {number}"
                yield Bad(where, *not_utf8(row)) if isinstance(row, UnicodeDecodeError) else (where, row)
    except ERRORS as error:
        require_content(path, error)
        yield Bad(f"{path}, after row {number}", CUT, f"row group {group} is damaged: {error}")


def _values(batch: Any) -> list[dict[str, Any] | UnicodeDecodeError]:
    try:
        return list(batch.to_pylist())
    except UnicodeDecodeError:
        return [_value(batch.slice(i, 1)) for i in range(batch.num_rows)]


def _value(row: Any) -> dict[str, Any] | UnicodeDecodeError:
    try:
        return dict(row.to_pylist()[0])
    except UnicodeDecodeError as error:
        return error


@contextmanager
def _opened(path: str) -> Iterator[pq.ParquetFile]:
    with place.open_file(path) as file:
        yield pq.ParquetFile(file)
