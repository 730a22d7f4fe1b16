"""CSV and TSV → rows: a header, then one value a column (https://www.rfc-editor.org/rfc/rfc4180).

It does not know what the columns mean: every value stays text.  Quotes hold delimiters and line ends in both kinds.
"""

import csv
import io
from collections.abc import Iterator
from typing import Any

from llmray.corpus.damage import ERRORS, DamageError, cut, shown
from llmray.corpus.files import not_utf8, opened
from llmray.corpus.record import Bad
from llmray.corpus.rows import Row

FIELD_CHARS = 1 << 24
"""A longer field is a quote that nobody closed; Python's own bound, 128 KiB, is less than some documents."""


def commas(path: str) -> Iterator[Row | Bad]:
    return _delimited(path, ",")


def tabs(path: str) -> Iterator[Row | Bad]:
    return _delimited(path, "\t")


def _delimited(path: str, delimiter: str) -> Iterator[Row | Bad]:
    csv.field_size_limit(FIELD_CHARS)
    with opened(path) as file:
        text = io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="")
        reader = csv.reader(text, delimiter=delimiter, strict=True)
        try:
            yield from _rows(path, reader)
        except ERRORS as error:
            yield cut(path, f"line {reader.line_num}", error)


def _rows(path: str, reader: Any) -> Iterator[Row | Bad]:
    header: list[str] = []
    while True:
        where = f"{path}, line {reader.line_num + 1}"
        try:
            fields = _fields(where, reader)
            if fields is None:
                return
            if fields and header:
                yield where, _row(where, header, fields)
            elif fields:
                header = _header(where, fields)
        except DamageError as damage:
            yield damage.bad
            if not header:
                return  # without their names columns mean nothing


def _fields(where: str, reader: Any) -> list[str] | None:
    """The next record: empty for a blank line, None at the end."""
    try:
        fields: list[str] | None = next(reader, None)
    except csv.Error as error:
        raise DamageError(where, "not CSV", f"not CSV: {error}, in line {reader.line_num}") from None
    for text in fields or ():
        if not text.isascii():
            try:
                text.encode("utf-8", "surrogateescape").decode()
            except UnicodeDecodeError as error:
                raise DamageError(where, *not_utf8(error), shown(fields)) from None
    return fields


def _header(where: str, names: list[str]) -> list[str]:
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice:
        reason = f"the header names column {twice!r} twice; give each a name of its own"
        raise DamageError(where, "wrong column", reason, shown(names))
    return names


def _row(where: str, header: list[str], fields: list[str]) -> dict[str, str]:
    if len(fields) != len(header):
        reason = f"{len(fields)} fields where the header has {len(header)}"
        raise DamageError(where, "wrong row", reason, shown(fields))
    return dict(zip(header, fields, strict=True))
