"""A row of a file → a record: which rows are wanted, and which columns they come from.

It does not know how rows are read.  Every error is a `DataError` that names the row and the way out.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from typing import Any, TypeAlias

from llmray.corpus.images import Images, require_picture
from llmray.corpus.record import Picture, Question, Record
from llmray.job.errors import DataError
from llmray.job.schema import Source

Row: TypeAlias = tuple[str, Mapping[str, Any]]
"""Where a row was found ("FILE, line N"), and its columns."""

PICTURE = ("image", "caption", "captions")


class Maker:
    """Makes records of one kind from the rows of a source."""

    def __init__(self, source: Source, record: type[Record]) -> None:
        self.source, self.record = source, record
        self.names = PICTURE if record is Picture else tuple(field.name for field in fields(record))
        self.images = Images(source.images) if source.images else None
        for name in source.columns:
            if name not in self.names:
                known = f"{record.__name__} has {', '.join(self.names)}"
                raise DataError(f"{source.path}: columns: no column of ours is called {name!r}; {known}")

    def records(self, rows: Iterable[Row], whole: bool) -> Iterator[Record]:
        """A record for every wanted row.  Raises `DataError` when `where` keeps none of the `whole` source."""
        seen: dict[str, set[str]] = {column: set() for column in self.source.where}
        none = True
        for where, row in rows:
            if self._wanted(where, row, seen):
                none = False
                yield self._record(where, row)
        if none and whole:
            found = "; ".join(f"{column}: {_some(values)}" for column, values in seen.items())
            raise DataError(f"{self.source.path}: `where` keeps no row; found there: {found}")

    def _wanted(self, where: str, row: Mapping[str, Any], seen: dict[str, set[str]]) -> bool:
        kept = True
        for column, wanted in self.source.where.items():
            value = _plain(_column(where, row, column))
            if len(seen[column]) < 6:
                seen[column].add(value)
            kept = kept and value in map(_plain, wanted if isinstance(wanted, list) else [wanted])
        return kept

    def _record(self, where: str, row: Mapping[str, Any]) -> Record:
        if self.record is Picture:
            return self._picture(where, row)
        return self.record(**{name: self._field(where, row, name) for name in self.names})

    def _field(self, where: str, row: Mapping[str, Any], name: str) -> Any:
        if self.record is Question:
            if name == "answers":
                return _answers(where, self._value(where, row, name))
            if name == "id" and name not in self.source.columns and name not in row:
                return where
        return _text(where, name, self._value(where, row, name))

    def _value(self, where: str, row: Mapping[str, Any], name: str) -> Any:
        wanted = self.source.columns.get(name, name)
        if "{" not in wanted:
            return _column(where, row, wanted)
        try:
            return wanted.format_map(row)
        except KeyError as error:
            return _column(where, row, str(error.args[0]))
        except (ValueError, AttributeError, IndexError) as error:
            raise DataError(f"{where}: columns.{name}: {wanted!r} is not a template of columns: {error}") from None

    def _picture(self, where: str, row: Mapping[str, Any]) -> Picture:
        plural = "captions" in self.source.columns or ("captions" in row and "caption" not in self.source.columns)
        told = self._value(where, row, "captions" if plural else "caption")
        if plural and not isinstance(told, list):
            raise DataError(f"{where}: captions is a list of texts; found {_short(told)}; for one text use `caption`")
        captions = [_text(where, "caption", text) for text in (told if plural else [told])]
        return Picture(self._image(where, self._value(where, row, "image")), captions)

    def _image(self, where: str, value: Any) -> bytes:
        if isinstance(value, Mapping):  # Hugging Face's image column
            value = value.get("bytes") or value.get("path")
        name = "image" if isinstance(value, bytes) else _text(where, "image", value)
        if not isinstance(value, bytes):
            if self.images is None:
                raise DataError(f"{where}: {name!r} names a picture; say where they are with `images`")
            value = self.images.read(name, where)
        require_picture(value, where, name)
        return bytes(value)


def _column(where: str, row: Mapping[str, Any], column: str) -> Any:
    if column in row:
        return row[column]
    near = difflib.get_close_matches(column, row, 1, 0.4)
    raise DataError(
        f"{where}: no column {column!r}; found: {', '.join(map(str, row))}"
        + (f"; did you mean {near[0]!r}?" if near else "")
        + "; `columns` of the source maps ours to yours"
    )


def _text(where: str, name: str, value: Any) -> str:
    if not isinstance(value, (str, int, float)):
        raise DataError(f"{where}: {name} is text; found {_short(value)}")
    text = value if isinstance(value, str) else _plain(value)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"{where}: {name} is not text: half a surrogate pair at character {error.start}") from None
    return text


def _answers(where: str, value: Any) -> list[dict[str, Any]]:
    """Ours, SQuAD's (`answer_start`) and Hugging Face's (a list a column) forms."""
    try:
        if isinstance(value, Mapping):
            starts = value["start"] if "start" in value else value["answer_start"]
            value = [{"text": text, "start": start} for text, start in zip(value["text"], starts, strict=True)]
        return [
            {
                "text": _text(where, "answers", a["text"]),
                "start": int(a["start"] if "start" in a else a["answer_start"]),
            }
            for a in value
        ]
    except (KeyError, TypeError, ValueError):
        raise DataError(f"{where}: answers is a list of {{text, start}}; found {_short(value)}") from None


def _plain(value: Any) -> str:
    """As YAML and JSON write it, so that true is "true" in both."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _some(values: set[str]) -> str:
    shown = sorted(values)
    return ", ".join(map(repr, shown[:5])) + (" …" if len(shown) > 5 else "")


def _short(value: Any) -> str:
    text = "nothing (null)" if value is None else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
