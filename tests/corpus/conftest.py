"""What tests of sources share."""

import io
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from llmray.corpus.record import Bad, Record
from llmray.corpus.source import read, shards
from llmray.job.data import Source

Gather = Callable[..., tuple[list[dict[str, Any]], list[Bad]]]


@pytest.fixture
def gather() -> Gather:
    """Reads a whole source: its records as mappings, and what cannot be read."""

    def gathered(record: type[Record], **source: object) -> tuple[list[dict[str, Any]], list[Bad]]:
        found: list[dict[str, Any]] = []
        bad: list[Bad] = []
        for shard in shards(Source.model_validate(source)):
            for columns in read(shard, record, on_bad=bad.append):
                found += [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        return found, bad

    return gathered


@pytest.fixture
def png() -> bytes:
    """A small red picture."""
    file = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(file, "PNG")
    return file.getvalue()
