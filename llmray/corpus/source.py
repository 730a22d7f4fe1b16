"""A source of a job → shards → batches of records.

It does not know about Ray, nor what a task makes of the records.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from itertools import islice

from llmray.corpus import shapes
from llmray.corpus.record import Columns, Record
from llmray.corpus.tables import SUFFIXES, records_of
from llmray.job.errors import DataError
from llmray.job.schema import Source
from llmray.store import place

BUILTIN = "builtin:"
BUILTIN_SHARD_ROWS = 2000


@dataclass(frozen=True)
class Shard:
    """A part of a source that one task reads: files, or a range of the built-in corpus."""

    source: Source
    paths: tuple[str, ...] = ()
    start: int = 0
    stop: int = 0


def shards(source: Source) -> list[Shard]:
    """Split a source into parts.  Raises `DataError` naming the path where nothing readable is there."""
    if source.path.startswith(BUILTIN):
        rows = shapes.parse_uri(source.path).rows
        rows = min(rows, source.limit or rows)
        starts = range(0, rows, BUILTIN_SHARD_ROWS)
        return [Shard(source, start=at, stop=min(at + BUILTIN_SHARD_ROWS, rows)) for at in starts]
    found = place.expand(source.path, SUFFIXES)
    if not found:
        raise DataError(
            f"{source.path}: nothing to read there: no such file, or a folder or glob without files of the kinds"
            f" {', '.join(SUFFIXES)}"
        )
    # A limit counts over all files, so one reader must see them all.
    return [Shard(source, tuple(found))] if source.limit else [Shard(source, (path,)) for path in found]


def read(shard: Shard, record: type[Record], batch_rows: int = 256) -> Iterator[Columns]:
    """Records of a shard as columns, `batch_rows` at a time.  Raises `DataError` naming file and record."""
    records = _records(shard, record)
    names = [field.name for field in fields(record)]
    while batch := list(islice(records, batch_rows)):
        rows = [asdict(one) for one in batch]
        yield {name: [row[name] for row in rows] for name in names}


def _records(shard: Shard, record: type[Record]) -> Iterator[Record]:
    if not shard.paths:
        address = shapes.parse_uri(shard.source.path)
        return shapes.records(record, address.seed, address.split, shard.start, shard.stop)
    found = (one for path in shard.paths for one in records_of(shard.source, path, record))
    return islice(found, shard.source.limit)
