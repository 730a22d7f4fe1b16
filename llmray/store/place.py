"""A path anywhere (local, s3, gs, az, memory): open, list, write-then-rename, copy.

It knows nothing of what is stored.  Every path is a `str`; URIs go through fsspec, whose credentials come from the
clouds' own standard chains.
"""

import errno
import hashlib
import itertools
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any, TypeVar

import fsspec

from llmray.job.errors import StorageError, StoreError

GLOB = frozenset("*?[")
OUTAGE_S = 60.0
"""How long a storage that fails is tried again: twice the half minute that a network share or a bucket may be away."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 5.0
CLOUDS = frozenset({"adlfs", "aiohttp", "azure", "botocore", "gcsfs", "google"})
"""Packages below fsspec's drivers, which let their errors through."""
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST})

T = TypeVar("T")


@dataclass(frozen=True)
class Span:
    """Bytes of a file, from `start` up to `stop`."""

    path: str
    start: int
    stop: int


@contextmanager
def _in_words(path: str, writes: bool = False) -> Iterator[None]:
    """A cloud's errors, and a written disk's, as `StorageError`; what a file that is read lacks its reader says."""
    try:
        yield
    except Exception as error:
        if type(error).__module__.partition(".")[0] in CLOUDS:
            raise StorageError(
                f"{path}: the storage gives no access ({error}); check the address, and the credentials, which come"
                " from the cloud's own chain (environment, profile, role)"
            ) from error
        if writes and isinstance(error, OSError) and error.errno in FULL:
            raise StorageError(
                f"{path}: no room is left ({error.strerror}); free some, or choose another `output`; what was written"
                " before is kept"
            ) from error
        if writes and (isinstance(error, PermissionError) or getattr(error, "errno", None) in REFUSED):
            raise StorageError(
                f"{path}: cannot be written ({error}); check its rights, or choose another place"
            ) from error
        raise


def is_local(path: str) -> bool:
    return "://" not in path or path.startswith("file://")


def join(base: str, *parts: str) -> str:
    return "/".join([base.rstrip("/") or "/", *(part.strip("/") for part in parts)])


def _filesystem(path: str) -> tuple[Any, str]:
    try:
        return fsspec.core.url_to_fs(path, use_listings_cache=False)  # other processes write there too
    except (ImportError, ValueError) as error:
        raise StoreError(f"{path}: this kind of storage is not available: {error}") from None


def exists(path: str) -> bool:
    fs, inner = _filesystem(path)
    with _in_words(path):
        return bool(fs.exists(inner))


def listdir(path: str) -> list[str]:
    """Names in a folder, sorted; empty when there is no such folder."""
    fs, inner = _filesystem(path)
    with _in_words(path):
        if not fs.isdir(inner):
            return []
        return sorted(Path(name.rstrip("/")).name for name in fs.ls(inner, detail=False))


@contextmanager
def open_file(path: str, mode: str = "rb", compression: str | None = None) -> Iterator[IO[Any]]:
    """Open for reading or writing; parent folders are made for writing.

    Raises `StoreError` where the storage gives no access, or, for writing, no room; `OSError` for what cannot be read.
    """
    fs, inner = _filesystem(path)
    writes = "r" not in mode
    options: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8"}
    with _in_words(path, writes):
        if writes:
            fs.makedirs(fs._parent(inner), exist_ok=True)
        with fs.open(inner, mode, compression=compression, **options) as file:
            yield file


def read_spans(spans: Iterable[Span]) -> dict[Span, bytes]:
    """The bytes of spans, read at the same time where the storage can; its driver tries again what may pass.

    Raises `StoreError` naming the file that cannot be read.
    """
    held: dict[Span, bytes] = {}
    ordered = sorted(spans, key=lambda span: (span.path, span.start))
    for fs, some in itertools.groupby(ordered, key=lambda span: _filesystem(span.path)[0]):
        wanted = list(some)
        paths = [fs._strip_protocol(span.path) for span in wanted]
        found = fs.cat_ranges(paths, [s.start for s in wanted], [s.stop for s in wanted], on_error="return")
        for span, data in zip(wanted, found, strict=True):
            if isinstance(data, BaseException):
                raise StoreError(f"{span.path}: cannot be read ({data})") from data
            held[span] = data
    return held


def read_text(path: str) -> str:
    with open_file(path, "r") as file:
        return str(file.read())


def sha256(path: str) -> str | None:
    """Hash of a file's bytes; None where there is none."""
    try:
        with open_file(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    except FileNotFoundError:
        return None


def write_text(path: str, text: str) -> None:
    """Write so that a reader sees the old text or the new one, never half: temporary name, then rename."""
    with replacing(path) as file:
        file.write_text(text, encoding="utf-8")


@contextmanager
def replacing(path: str) -> Iterator[Path]:
    """A local file to write, which takes the name `path` once it is whole; after an error nothing is there.

    Raises `StoreError` as `open_file` does.
    """
    local = is_local(path)
    target = Path(path.removeprefix("file://"))
    with _in_words(path, writes=True):
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
        except (OSError, StorageError) as error:
            if time.monotonic() + pause_s > began + OUTAGE_S:
                raise StoreError(
                    f"{doing} failed for {OUTAGE_S:.0f} s: {error}; make room or mend the storage, then go on"
                ) from error
            if pause_s == FIRST_PAUSE_S:
                warn(f"{doing} failed: {error}; trying again for {OUTAGE_S:.0f} s")
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def upload(folder: str | Path, path: str) -> None:
    """Copy a local folder's files under `path`.  Raises `StoreError` as `open_file` does."""
    with _in_words(path, writes=True):
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
    with _in_words(path):
        if not fs.exists(inner):
            raise StoreError(f"{path}: nothing is there")
        target = Path(tempfile.mkdtemp(prefix="llmray-")) / Path(inner).name
        fs.get(inner, str(target), recursive=fs.isdir(inner))
    return target


def remove(path: str) -> None:
    """Raises `StoreError` as `open_file` does."""
    fs, inner = _filesystem(path)
    with _in_words(path, writes=True):
        if fs.exists(inner):
            fs.rm(inner, recursive=True)


def expand(path: str, suffixes: Sequence[str] = ()) -> list[str]:
    """Files that a file name, glob or folder stands for, sorted; a folder gives those with the suffixes."""
    fs, inner = _filesystem(path)
    with _in_words(path):
        if GLOB & set(inner):
            found = [name for name in fs.glob(inner) if fs.isfile(name)]
        elif fs.isdir(inner):
            found = [n for n in fs.find(inner) if not suffixes or n.endswith(tuple(suffixes))]
        else:
            found = [inner] if fs.exists(inner) else []
    return sorted(str(fs.unstrip_protocol(name)) if not is_local(path) else str(name) for name in found)
