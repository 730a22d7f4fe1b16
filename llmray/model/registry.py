"""Versions of models and the names they go by: `NAME/vN/` folders, `NAME/aliases.json`.

It does not know what a model does.  A version counts once its `version.json`, written last, is there.
"""

import hashlib
import json
import re
import shutil
import tempfile
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from llmray.job.errors import StoreError
from llmray.job.results import ModelVersion
from llmray.store import place

PREFIX = "registry:"
FOLDER = "registry"
NOTE = "version.json"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
NUMBER = re.compile(r"v?[0-9]+")


def nearest(output: str) -> str:
    """The `registry` folder at or above `output`; `output/registry` where there is none."""
    here = output.rstrip("/")
    while True:
        found = place.join(here, FOLDER)
        if place.exists(found):
            return found
        above = here.rpartition("/")[0]
        if not above or above.endswith((":/", ":")):
            return place.join(output, FOLDER)
        here = above


def register(root: str, name: str, folder: str, metrics: dict[str, float]) -> ModelVersion:
    """Copy a model folder in as the next version.  Raises `StoreError` when it is no model folder."""
    _require_name("a model", name)
    source = place.local_copy(folder)
    weights = sorted(source.glob("*.safetensors")) if source.is_dir() else []
    if not weights or not (source / "config.json").exists():
        raise StoreError(f"{folder}: no model to register there (config.json and .safetensors are needed)")
    task, digest = _task(source), sha256(weights)
    number, target = _next(root, name)
    _copy(source, target)
    made = ModelVersion(
        name=name,
        version=number,
        task=task,
        folder=target,
        metrics=metrics,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        sha256=digest,
    )
    place.write_text(place.join(target, NOTE), made.model_dump_json(indent=2))
    return made


def _require_name(what: str, name: str) -> None:
    if not NAME.fullmatch(name):
        raise StoreError(f"{name!r}: {what}'s name is made of letters, digits, '.', '_' and '-'")


def _task(source: Path) -> str:
    note = source / "llmray.json"
    try:
        return str(json.loads(note.read_text())["task"]["name"]) if note.exists() else "unknown"
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{note}: does not say which task the model was trained for: {error!r}") from None


def sha256(weights: list[Path]) -> str:
    """The file's own hash; for weights in several files the hash of their hashes, in order of name."""
    hashes = []
    for path in weights:
        with path.open("rb") as file:
            hashes.append(hashlib.file_digest(file, "sha256"))
    return (
        hashes[0].hexdigest() if len(hashes) == 1 else hashlib.sha256(b"".join(h.digest() for h in hashes)).hexdigest()
    )


def _next(root: str, name: str) -> tuple[int, str]:
    """Number and folder of the next version: one above the highest taken, unfinished ones included.

    On local disks the folder is made here, and whoever makes it has the number.
    """
    while True:
        taken = [int(v[1:]) for v in place.listdir(place.join(root, name)) if v.startswith("v") and v[1:].isdigit()]
        number = max(taken, default=0) + 1
        target = place.join(root, name, f"v{number}")
        if not place.is_local(target):
            return number, target
        try:
            Path(target.removeprefix("file://")).mkdir(parents=True)
        except FileExistsError:
            continue
        return number, target


def _copy(source: Path, target: str) -> None:
    """A model's files; the note of an earlier registration, and a registry inside the folder, are no part of them."""
    with tempfile.TemporaryDirectory() as scratch:
        left_out = shutil.ignore_patterns(NOTE, FOLDER)
        if place.is_local(target):
            shutil.copytree(source, target.removeprefix("file://"), ignore=left_out, dirs_exist_ok=True)
            return
        shutil.copytree(source, Path(scratch, "model"), ignore=left_out)
        place.upload(Path(scratch, "model"), target)


def versions(root: str, name: str | None = None) -> list[ModelVersion]:
    """Every version of every model, or of one.  Raises `StoreError` for a name that is not there."""
    known = place.listdir(root)
    if name is not None and name not in known:
        raise StoreError(f"{root}: no model {name!r}; known: {', '.join(known) or 'none'}")
    return [version for one in ([name] if name else known) for version in _of(root, one)]


def _of(root: str, name: str) -> list[ModelVersion]:
    aliases = {alias: history[-1] for alias, history in _aliases(root, name).items() if history}
    found = []
    for entry in place.listdir(place.join(root, name)):
        folder = place.join(root, name, entry)
        if place.exists(place.join(folder, NOTE)):
            made = _read(place.join(folder, NOTE))
            held = tuple(alias for alias, number in aliases.items() if number == made.version)
            found.append(made.model_copy(update={"folder": folder, "aliases": held}))
    return sorted(found, key=lambda version: version.version)


def _read(path: str) -> ModelVersion:
    try:
        return ModelVersion.model_validate_json(place.read_text(path))
    except ValueError as error:
        raise StoreError(f"{path}: cannot be read as a version: {str(error).splitlines()[0]}") from None


def _aliases(root: str, name: str) -> dict[str, list[int]]:
    """Alias → the versions it has named, newest last."""
    path = place.join(root, name, "aliases.json")
    if not place.exists(path):
        return {}
    try:
        return {alias: [int(n) for n in history] for alias, history in json.loads(place.read_text(path)).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise StoreError(f"{path}: cannot be read as aliases: {error}") from None


def referred(reference: str, root: str | None) -> ModelVersion:
    """The version that `registry:NAME@ALIAS` or `registry:NAME@vN` names; without either, the champion."""
    name, _, wanted = reference.removeprefix(PREFIX).partition("@")
    return find(root or FOLDER, name, wanted or "champion")


def find(root: str, name: str, wanted: str) -> ModelVersion:
    """The version that an alias or a number (`3`, `v3`) names.  Raises `StoreError` naming what there is."""
    known = versions(root, name)
    for version in known:
        if wanted in (*version.aliases, str(version.version), f"v{version.version}"):
            return version
    there = ", ".join(f"v{v.version}" + (f" ({', '.join(v.aliases)})" if v.aliases else "") for v in known)
    raise StoreError(f"registry:{name}@{wanted}: no such version or alias; there are: {there or 'none'}")


def promote(root: str, name: str, version: int, alias: str) -> ModelVersion:
    """Let an alias name a version; it remembers what it named before."""
    _require_name("an alias", alias)
    if NUMBER.fullmatch(alias):
        raise StoreError(f"{alias!r}: an alias must not look like a version's number")
    find(root, name, str(version))
    with _alone(root, name):
        aliases = _aliases(root, name)
        if aliases.get(alias, [None])[-1:] != [version]:
            _write(root, name, aliases | {alias: [*aliases.get(alias, []), version]})
    return find(root, name, alias)


def rollback(root: str, name: str, alias: str) -> ModelVersion:
    """Let an alias name again what it named before.  Raises `StoreError` when there is nothing before."""
    versions(root, name)
    with _alone(root, name):
        aliases = _aliases(root, name)
        history = aliases.get(alias, [])
        if len(history) < 2:
            known = f"; aliases: {', '.join(sorted(aliases)) or 'none'}" if not history else ""
            raise StoreError(
                f"{name}@{alias}: nothing to roll back to; it has named {history or 'no version'} so far{known}"
            )
        find(root, name, str(history[-2]))
        _write(root, name, aliases | {alias: history[:-1]})
    return find(root, name, alias)


def _alone(root: str, name: str) -> AbstractContextManager[Any]:
    """Nobody else on this machine changes the aliases meanwhile; an object store keeps the last change."""
    path = place.join(root, name, ".aliases.lock")
    return FileLock(path.removeprefix("file://")) if place.is_local(root) else nullcontext()


def _write(root: str, name: str, aliases: dict[str, list[int]]) -> None:
    place.write_text(place.join(root, name, "aliases.json"), json.dumps(aliases, indent=2))
