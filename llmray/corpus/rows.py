"""A row of a file → a record: which rows are wanted, and which columns they come from.

It does not know how rows are read.  A row that makes no record becomes a `Bad`; what is wrong with the source's keys is
a `DataError`.
"""

import difflib
import string
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, replace
from typing import Any, TypeAlias

from llmray.corpus.damage import DamageError, shown
from llmray.corpus.images import Beside, Images, from_folder, require_picture
from llmray.corpus.record import Bad, Conversation, Picture, Question, Record
from llmray.job.data import Source
from llmray.job.errors import DataError

Row: TypeAlias = tuple[str, Mapping[str, Any]]
"""Where a row was found ("FILE, line N"), and its columns."""

PICTURE = ("image", "caption", "captions")
USUAL: dict[type[Record], dict[str, str]] = {
    Picture: {"image": "file_name", "caption": "text"},
    Conversation: {"messages": "conversations"},
}
"""What image folders, WebDataset, COCO and ShareGPT call ours."""
SPEAKERS = {"human": "user", "gpt": "assistant"}
"""What ShareGPT calls those who speak; other roles are OpenAI's."""


class Maker:
    """Makes records of one kind from the rows of a source."""

    def __init__(self, source: Source, record: type[Record]) -> None:
        self.source, self.record = source, record
        self.names = PICTURE if record is Picture else tuple(field.name for field in fields(record))
        self.images = Images(source.images) if source.images else None
        for name, wanted in source.columns.items():
            if name not in self.names:
                known = f"{record.__name__} has {', '.join(self.names)}"
                raise DataError(f"{source.path}: columns: no column of ours is called {name!r}; {known}")
            _require_template(source.path, name, wanted)

    def records(self, rows: Iterable[Row | Bad], whole: bool) -> Iterator[Record | Bad]:
        """A record for every wanted row.  Raises `DataError` when `where` keeps none of the `whole` source."""
        seen: dict[str, set[str]] = {column: set() for column in self.source.where}
        none = bool(seen)
        for row in rows:
            if isinstance(row, Bad):
                yield row
                continue
            try:
                if not self._wanted(*row, seen):
                    continue
                none = False
                made: Record | Bad = self._record(*row)
            except DamageError as damage:
                made = replace(damage.bad, record=shown(row[1]))
            yield made
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
                return [] if row.get("is_impossible") is True else _answers(where, self._value(where, row, name))
            if name == "id" and name not in self.source.columns and name not in row:
                return where
        if self.record is Conversation:
            return _messages(where, self._value(where, row, name))
        return _text(where, name, self._value(where, row, name))

    def _value(self, where: str, row: Mapping[str, Any], name: str) -> Any:
        wanted = self.source.columns.get(name, name if name in row else self._usual(row, name))
        if "{" not in wanted:
            return _column(where, row, wanted)
        try:
            return wanted.format_map(row)
        except KeyError as error:
            return _column(where, row, str(error.args[0]))
        except (ValueError, AttributeError, IndexError, TypeError) as error:
            reason = f"columns.{name}: {wanted!r} does not fit the row: {error}"
            raise DamageError(where, "wrong column", reason) from None

    def _usual(self, row: Mapping[str, Any], name: str) -> str:
        usual = USUAL.get(self.record, {}).get(name, name)
        return usual if usual in row else name

    def _picture(self, where: str, row: Mapping[str, Any]) -> Picture:
        plural = "captions" in self.source.columns or ("captions" in row and "caption" not in self.source.columns)
        told = self._value(where, row, "captions" if plural else "caption")
        if plural and not isinstance(told, list):
            reason = f"captions is a list of texts; found {_short(told)}; for one text use `caption`"
            raise DamageError(where, "wrong column", reason)
        captions = [_text(where, "caption", text) for text in (told if plural else [told])]
        return Picture(self._image(where, self._value(where, row, "image")), captions)

    def _image(self, where: str, value: Any) -> bytes:
        if isinstance(value, Mapping):  # Hugging Face's image column
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes):
            require_picture(value, where, "image")
            return value
        name = _text(where, "image", value.name if isinstance(value, Beside) else value)
        if self.images is not None:
            data = self.images.read(name, where)
        elif isinstance(value, Beside):
            data = from_folder(value.folder, name, where)
        else:
            raise DamageError(where, "no picture", f"{name!r} names a picture; say where they are with `images`")
        require_picture(data, where, name)
        return data


def _require_template(path: str, name: str, wanted: str) -> None:
    """Raise `DataError` unless each brace of a template names a column."""
    if "{" not in wanted:
        return
    try:
        named = [field for _, field, _, _ in string.Formatter().parse(wanted) if field is not None]
        error = "" if all(named) and not any(field[0].isdigit() for field in named) else "braces hold a column's name"
    except ValueError as found:
        error = str(found)
    if error:
        raise DataError(f"{path}: columns.{name}: {wanted!r} is not a template of columns: {error}")


def _column(where: str, row: Mapping[str, Any], column: str) -> Any:
    if column in row:
        return row[column]
    near = difflib.get_close_matches(column, map(str, row), 1, 0.4)
    reason = (
        f"no column {column!r}; found: {', '.join(map(str, row))}"
        + (f"; did you mean {near[0]!r}?" if near else "")
        + "; `columns` of the source maps ours to yours"
    )
    raise DamageError(where, "wrong column", reason)


def _text(where: str, name: str, value: Any) -> str:
    if not isinstance(value, (str, int, float)):
        raise DamageError(where, "not text", f"{name} is text; found {_short(value)}")
    text = value if isinstance(value, str) else _plain(value)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            reason = f"{name} is not text: half a surrogate pair at character {error.start}"
            raise DamageError(where, "not text", reason) from None
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
        reason = f"answers is a list of {{text, start}}; found {_short(value)}"
        raise DamageError(where, "bad answers", reason) from None


def _messages(where: str, value: Any) -> list[dict[str, str]]:
    """OpenAI's (`role`, `content`) and ShareGPT's (`from`, `value`) forms."""
    try:
        told = [(m["role"], m["content"]) if "role" in m else (m["from"], m["value"]) for m in value]
    except (KeyError, TypeError):
        told = []
    if not told:
        reason = f"messages is a list of {{role, content}}; found {_short(value)}"
        raise DamageError(where, "bad messages", reason)
    return [
        {"role": SPEAKERS.get(role, role), "content": _text(where, "content", content)}
        for role, content in ((_text(where, "role", role), content) for role, content in told)
    ]


def _plain(value: Any) -> str:
    """As YAML and JSON write it, so that true is "true" in both."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _some(values: set[str]) -> str:
    shown = sorted(values)
    return ", ".join(map(repr, shown[:5])) + (" …" if len(shown) > 5 else "")


def _short(value: Any) -> str:
    text = "nothing (null)" if value is None else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
