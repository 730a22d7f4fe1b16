"""WebDataset's tars → rows (https://github.com/webdataset/webdataset#the-webdataset-format), streamed, not unpacked.

It does not know which members a task needs.  Neighbouring files whose names agree up to the first dot are one sample;
what follows the dot names a column.
"""

import json
import re
import tarfile
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import IO, Any

from llmray.corpus.damage import ERRORS, DamageError, Member, cut
from llmray.corpus.files import not_utf8, opened
from llmray.corpus.images import PICTURES
from llmray.corpus.record import Bad
from llmray.corpus.rows import Row

NAME = re.compile(r"(?P<key>(?:.*/)?[^./][^./]*)\.(?P<column>[^/]+)")
TEXTS = ("txt", "text", "cls")

Parts = list[tuple[str, bytes]]
"""Column and content of a sample's members."""


def samples(path: str) -> Iterator[Row | Bad]:
    """A row a sample: its members by their endings, the keys of its `.json`, `image` and `text`."""
    after = "its beginning"
    with opened(path) as file:
        try:
            with tarfile.open(fileobj=file, mode="r|*", tarinfo=Member) as tar:
                for key, members in groupby(_members(tar), itemgetter(0)):
                    parts = [(column, part.read()) for _, column, part in members]
                    yield _sample(f"{path}, sample {key}", key, parts)
                    after = f"sample {key}"
        except ERRORS as error:
            yield cut(path, after, error)


def _members(tar: tarfile.TarFile) -> Iterator[tuple[str, str, IO[bytes]]]:
    """Key, column and file of each, to be read before the next."""
    for member in tar:
        tar.members.clear()  # type: ignore[attr-defined] # kept, they would grow with the tar
        named = NAME.fullmatch(member.name.removeprefix("./"))
        file = tar.extractfile(member) if member.isfile() else None
        if named and file:
            yield named["key"], named["column"].lower(), file


def _sample(where: str, key: str, parts: Parts) -> Row | Bad:
    columns = [column for column, _ in parts]
    if len(set(columns)) < len(columns):
        return Bad(where, "wrong row", f"two members of one name among {', '.join(columns)}")
    try:
        members = {column: _decoded(where, column, data) for column, data in parts}
    except DamageError as damage:
        return damage.bad
    told = members["json"] if isinstance(members.get("json"), dict) else {}
    ours = {"text": members["txt"]} if "txt" in members else {}
    picture = next((column for column in columns if f".{column}".endswith(PICTURES)), None)
    if picture:
        ours["image"] = members[picture]
    return where, {"__key__": key} | told | members | ours


def _decoded(where: str, column: str, data: bytes) -> Any:
    kind = column.rpartition(".")[2]
    if kind not in (*TEXTS, "json"):
        return data
    try:
        text = data.decode("utf-8-sig").rstrip("\r\n")
        return json.loads(text) if kind == "json" else text
    except UnicodeDecodeError as error:
        raise DamageError(f"{where}.{column}", *not_utf8(error)) from None
    except (json.JSONDecodeError, RecursionError) as error:
        raise DamageError(f"{where}.{column}", "not JSON", f"not JSON: {error}") from None
