"""A path anywhere (local, s3, gs, az, memory): open, list, write-then-rename, copy.

It knows nothing of what is stored.  Every path is a `str`; URIs go through fsspec, whose credentials come from the
clouds' own standard chains.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, Any, TypeVar

import fsspec

from llmray.job.errors import StoreError

GLOB = frozenset("*?[")
OUTAGE_S = 60.0
"""How long a storage that fails is tried again: twice the half minute that a network share or a bucket may be away."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 5.0
CLIENTS = frozenset({"adlfs", "aiohttp", "azure", "botocore", "gcsfs", "google"})
"""Packages of storage clients, whose errors are not all `OSError`s."""

T = TypeVar("T")


def is_local(path: str) -> bool:
    return "://" not in path or path.startswith("file://")


def join(base: str, *parts: str) -> str:
    return "/".join([base.rstrip("/") or "/", *(part.strip("/") for part in parts)])


def _filesystem(path: str) -> tuple[Any, str]:
    try:
        return fsspec.core.url_to_fs(path)
    except (ImportError, ValueError) as error:
        raise StoreError(f"{path}: this kind of storage is not available: {error}") from None


def exists(path: str) -> bool:
    fs, inner = _filesystem(path)
    return bool(fs.exists(inner))


def listdir(path: str) -> list[str]:
    """Names in a folder, sorted; empty when there is no such folder."""
    fs, inner = _filesystem(path)
    if not fs.isdir(inner):
        return []
    fs.invalidate_cache(inner)
    return sorted(Path(name.rstrip("/")).name for name in fs.ls(inner, detail=False))


@contextmanager
def open_file(path: str, mode: str = "rb", compression: str | None = None) -> Iterator[IO[Any]]:
    """Open for reading or writing; parent folders are made for writing."""
    fs, inner = _filesystem(path)
    if "r" not in mode:
        fs.makedirs(fs._parent(inner), exist_ok=True)
    options: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8"}
    with fs.open(inner, mode, compression=compression, **options) as file:
        yield file


def read_text(path: str) -> str:
    with open_file(path, "r") as file:
        return str(file.read())


def write_text(path: str, text: str) -> None:
    """Write so that a reader sees the old text or the new one, never half: temporary name, then rename."""
    with replacing(path) as file:
        file.write_text(text, encoding="utf-8")


@contextmanager
def replacing(path: str) -> Iterator[Path]:
    """A local file to write, which takes the name `path` once it is whole; after an error nothing is there."""
    local = is_local(path)
    target = Path(path.removeprefix("file://"))
    if local:
        target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".llmray-", dir=target.parent if local else None) as scratch:
        yield (written := Path(scratch, "file"))
        if local:
            with written.open("rb") as file:
                os.fsync(file.fileno())
            written.replace(target)
        else:
            fs, inner = _filesystem(path)
            fs.put_file(str(written), inner)


def patiently(act: Callable[[], T], doing: str, warn: Callable[[str], None]) -> T:
    """Do what can be done anew, again and again while the storage fails: it may come back, or be given room.

    Warns at the first failure; after `OUTAGE_S` raises `StoreError`.
    """
    began, pause_s = time.monotonic(), FIRST_PAUSE_S
    while True:
        try:
            return act()
        except Exception as error:
            if not isinstance(error, OSError) and type(error).__module__.partition(".")[0] not in CLIENTS:
                raise
            if time.monotonic() + pause_s > began + OUTAGE_S:
                raise StoreError(
                    f"{doing} failed for {OUTAGE_S:.0f} s: {error}; make room or mend the storage, then go on"
                ) from error
            if pause_s == FIRST_PAUSE_S:
                warn(f"{doing} failed: {error}; trying again for {OUTAGE_S:.0f} s")
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def upload(folder: str | Path, path: str) -> None:
    """Copy a local folder's files under `path`."""
    if is_local(path):
        shutil.copytree(folder, path.removeprefix("file://"), dirs_exist_ok=True)
        return
    fs, inner = _filesystem(path)
    fs.put(f"{str(folder).rstrip('/')}/", f"{inner}/", recursive=True)


def local_copy(path: str) -> Path:
    """The path itself when it is local, else a copy downloaded once in this process."""
    return Path(path.removeprefix("file://")) if is_local(path) else _download(path)


@cache
def _download(path: str) -> Path:
    fs, inner = _filesystem(path)
    if not fs.exists(inner):
        raise StoreError(f"{path}: nothing is there")
    target = Path(tempfile.mkdtemp(prefix="llmray-")) / Path(inner).name
    fs.get(inner, str(target), recursive=fs.isdir(inner))
    return target


def remove(path: str) -> None:
    fs, inner = _filesystem(path)
    if fs.exists(inner):
        fs.rm(inner, recursive=True)


def expand(path: str, suffixes: Sequence[str] = ()) -> list[str]:
    """Files that a file name, glob or folder stands for, sorted; a folder gives those with the suffixes."""
    fs, inner = _filesystem(path)
    if GLOB & set(inner):
        found = [name for name in fs.glob(inner) if fs.isfile(name)]
    elif fs.isdir(inner):
        found = [n for n in fs.find(inner) if not suffixes or n.endswith(tuple(suffixes))]
    else:
        found = [inner] if fs.exists(inner) else []
    return sorted(str(fs.unstrip_protocol(name)) if not is_local(path) else str(name) for name in found)
