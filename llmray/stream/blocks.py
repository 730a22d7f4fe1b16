"""A prepared store: a folder of encoded blocks in Parquet files, and the manifest that commits them.

It does not know of Ray, nor where the blocks came from.  A file is named by its content, so that a task that Ray runs
twice writes it once.
"""

import hashlib
import io
import itertools
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from llmray.corpus.source import MANIFEST
from llmray.corpus.tokenizer import fingerprint
from llmray.job.data import Source
from llmray.job.errors import DataError
from llmray.store import place
from llmray.tasks.base import Processor, Task

BLOCKS = "blocks"
COUNTED = ("input_ids", "labels")
"""Columns whose lengths are a block's tokens."""
GROUP_ROWS, GROUP_BYTES = 1024, 1 << 20
"""A row group is what can be read by itself; it ends at these many rows or (decoded) bytes."""
MAGIC_BYTES = 4
"""Length of the mark at the start of a Parquet file (https://parquet.apache.org/docs/file-format)."""
ENCODING = (
    *("name", "seq_len", "packing", "max_length", "stride", "regression"),
    *("max_source_tokens", "max_target_tokens", "max_tokens"),
)
"""Options of a task that decide what its blocks look like."""


class Write:
    """A batch of features → a Parquet file in the store, and its line of the manifest."""

    def __init__(self, store: str) -> None:
        self.folder = place.join(store, BLOCKS)

    def __call__(self, batch: pa.Table) -> pa.Table:
        data = io.BytesIO()
        rows = max(1, min(GROUP_ROWS, GROUP_BYTES * batch.num_rows // max(batch.nbytes, 1)))
        pq.write_table(batch, data, row_group_size=rows, compression="zstd")
        digest = hashlib.sha256(data.getbuffer()).hexdigest()
        name = f"{digest[:20]}.parquet"
        with place.open_file(place.join(self.folder, name), "wb") as file:
            file.write(data.getbuffer())
        lengths = [batch[column].combine_chunks().values for column in COUNTED if column in batch.column_names]
        line = {"name": name, "rows": batch.num_rows, "tokens": sum(map(len, lengths)), "sha256": digest}
        return pa.table({key: [value] for key, value in (line | layout(data)).items()})


def layout(file: io.BytesIO) -> dict[str, Any]:
    """Row groups of a Parquet file, which lie one after another, and what follows them, the footer.

    A group's hash is of its bytes and the footer's: both together can be read and checked without the rest of the file.
    """
    found, data = pq.read_metadata(file), file.getbuffer()
    groups = [found.row_group(i) for i in range(found.num_row_groups)]
    sizes = [sum(group.column(i).total_compressed_size for i in range(group.num_columns)) for group in groups]
    ends = list(itertools.accumulate(sizes, initial=MAGIC_BYTES))
    footer = data[ends[-1] :]
    hashes = [hashlib.sha256(bytes(data[a:b]) + footer).hexdigest() for a, b in itertools.pairwise(ends)]
    lines = zip(groups, sizes, hashes, strict=True)
    return {
        "groups": [{"rows": group.num_rows, "bytes": size, "sha256": digest} for group, size, digest in lines],
        "footer_bytes": len(footer),
    }


class ReadBlocks:
    """Numbers of a store's files → their blocks.  Raises `DataError` for a file that is not what was written."""

    def __init__(self, store: str, files: Sequence[dict[str, Any]]) -> None:
        self.folder, self.files = place.join(store, BLOCKS), files

    def __call__(self, batch: dict[str, Any]) -> Iterator[pa.Table]:
        for number in batch["id"]:
            yield self._table(self.files[int(number)])

    def _table(self, file: dict[str, Any]) -> pa.Table:
        path = place.join(self.folder, file["name"])
        try:
            with place.open_file(path) as opened:
                data = opened.read()
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error}); prepare the store again") from None
        if hashlib.sha256(data).hexdigest() != file["sha256"]:
            raise DataError(f"{path}: is not what was written there; remove the store and prepare it again")
        return pq.read_table(io.BytesIO(data))


def manifest(store: str) -> dict[str, Any]:
    """What a store holds.  Raises `DataError`."""
    path = place.join(store, MANIFEST)
    try:
        found: dict[str, Any] = json.loads(place.read_text(path))
        missing = sorted({"shards", "task", "processor", "job", "result"} - found.keys())
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: not the manifest of a prepared store: {error}") from None
    if missing:
        raise DataError(f"{path}: not the manifest of a prepared store: {', '.join(missing)} missing")
    return found


def damaged(store: str, files: Sequence[dict[str, Any]]) -> list[str]:
    """Paths of a store's files that are missing, or not what was written."""
    paths = [place.join(store, BLOCKS, file["name"]) for file in files]
    with ThreadPoolExecutor() as pool:
        found = zip(paths, files, pool.map(place.sha256, paths), strict=True)
        return [path for path, file, digest in found if digest != file["sha256"]]


def columns(store: str, files: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Names and types of a store's columns."""
    if not files:
        return {}
    with place.open_file(place.join(store, BLOCKS, files[0]["name"])) as file:
        schema = pq.read_schema(file)
    return {name: str(schema.field(name).type) for name in schema.names}


def identity(processor: Processor) -> str:
    """Hash of what turns raw inputs into the numbers of a block."""
    size = processor.image_processor.size if processor.image_processor else {}
    template = processor.tokenizer.chat_template or ""
    whole = f"{fingerprint(processor.tokenizer)} {sorted(dict(size).items())}{template}"
    return hashlib.sha256(whole.encode()).hexdigest()


def encoding(task: Task) -> dict[str, Any]:
    """Options of a task that decide what its blocks look like."""
    return {key: value for key, value in task.options.model_dump(mode="json").items() if key in ENCODING}


def checked(source: Source, task: Task) -> dict[str, Any]:
    """The manifest of a store that was made for this task and tokenizer.  Raises `DataError`."""
    found = manifest(source.path)
    given = [key for key in ("target", "images", "columns", "where", "limit") if getattr(source, key)]
    if given:
        raise DataError(f"{source.path}: a prepared store is read whole; remove {', '.join(given)} from the source")
    wanted = encoding(task)
    differing = [key for key in {**found["task"], **wanted} if found["task"].get(key) != wanted.get(key)]
    if differing:
        told = "; ".join(f"{key}: {found['task'].get(key)!r} there, {wanted.get(key)!r} here" for key in differing)
        raise DataError(
            f"{source.path}: was prepared for the task {found['task'].get('name')!r}, which differs from this one:"
            f" {told}; prepare a store for it"
        )
    if found["processor"] != identity(task.processor):
        raise DataError(
            f"{source.path}: was prepared with another tokenizer than the model's; set model.tokenizer to"
            f" {place.join(source.path, 'tokenizer')}, or prepare a store with the model's"
        )
    return found
