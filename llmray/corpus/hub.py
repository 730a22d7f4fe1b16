"""`hf:OWNER/NAME?split=train`: a data set of the Hugging Face hub, or a local folder in its layout, as rows.

It does not keep anything: rows are streamed (https://huggingface.co/docs/datasets/stream), part by part.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from datasets import IterableDataset, load_dataset
from datasets.exceptions import DatasetsError

from llmray.corpus.damage import CUT, require_content
from llmray.corpus.record import Bad
from llmray.corpus.rows import Row
from llmray.job.errors import DataError
from llmray.store import place

ERRORS = (OSError, ValueError, DatasetsError)
"""What `datasets` raises for what is not there, and for what is damaged."""


class Address(NamedTuple):
    """What `hf:NAME?split=S&config=C&revision=R` asks for."""

    name: str
    split: str = "train"
    config: str | None = None
    revision: str | None = None


def parse_uri(path: str) -> Address:
    """Judge an `hf:` URI.  Raises `DataError` naming what is wrong and what is allowed."""
    name, _, query = path.removeprefix("hf:").partition("?")
    values = dict(parse_qsl(query, keep_blank_values=True))
    allowed = Address._fields[1:]
    for key, value in values.items():
        if key not in allowed:
            raise DataError(f"{path}: unknown key {key!r}; allowed: {', '.join(allowed)}")
        if not value:
            raise DataError(f"{path}: {key} is empty; give it a value or remove it")
    if not name:
        raise DataError(f"{path}: names no data set; write hf:OWNER/NAME?split=train, or hf:./FOLDER?split=train")
    return Address(name, **values)


def parts(path: str) -> int:
    """Parts that can be read apart: mostly one a file."""
    return int(_stream(path).num_shards)


def rows(path: str, start: int, stop: int) -> Iterator[Row | Bad]:
    """Rows of parts `start` to `stop`; pictures as the bytes of their files.  Damage ends its part."""
    stream = _stream(path)
    for part in range(start, stop):
        where, number = f"{path}, part {part}", 0
        try:
            for number, row in enumerate(stream.shard(stream.num_shards, part), 1):
                yield f"{where}, row {number}", {name: _with_bytes(value) for name, value in row.items()}
        except ERRORS as error:
            require_content(where, error)
            yield Bad(f"{where}, after row {number}", CUT, f"damaged or cut short: {error}")


def _stream(path: str) -> IterableDataset:
    address = parse_uri(path)
    try:
        stream = load_dataset(
            address.name, address.config, split=address.split, revision=address.revision, streaming=True
        )
    except ERRORS as error:
        said = " ".join(str(error).split()).rstrip(".")
        raise DataError(
            f"{path}: no such data set here or on the hub, or it cannot be reached: {said}; see its split, config and"
            " revision, and for a private one HF_TOKEN"
        ) from None
    return stream.decode(False) if stream.features else stream


def _with_bytes(value: Any) -> Any:
    """A picture's bytes, where `datasets` says only which file holds them."""
    if isinstance(value, Mapping) and value.keys() == {"bytes", "path"} and value["bytes"] is None and value["path"]:
        with place.open_file(value["path"]) as file:
            return {**value, "bytes": file.read()}
    return value
