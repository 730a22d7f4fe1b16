"""Versions of models and the names they go by: `NAME/vN/` folders, `NAME/aliases.json`.

It does not know what a model does.  A version counts once its `version.json`, written last, is there.
"""

import hashlib
import json
from datetime import UTC, datetime

from llmray.job.errors import StoreError
from llmray.job.results import ModelVersion
from llmray.store import place

FOLDER = "registry"


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
    source = place.local_copy(folder)
    weights = sorted(source.glob("*.safetensors")) if source.is_dir() else []
    if not weights or not (source / "config.json").exists():
        raise StoreError(f"{folder}: no model to register there (config.json and .safetensors are needed)")
    note = source / "llmray.json"
    task = json.loads(note.read_text())["task"]["name"] if note.exists() else "unknown"
    digest = hashlib.sha256()
    for path in weights:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    number = _next_number(root, name)
    target = place.join(root, name, f"v{number}")
    place.upload(source, target)
    made = ModelVersion(
        name=name,
        version=number,
        task=task,
        folder=target,
        metrics=metrics,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        sha256=digest.hexdigest(),
    )
    place.write_text(place.join(target, "version.json"), made.model_dump_json(indent=2))
    return made


def _next_number(root: str, name: str) -> int:
    """One above the highest taken, unfinished ones included."""
    taken = [int(v[1:]) for v in place.listdir(place.join(root, name)) if v.startswith("v") and v[1:].isdigit()]
    return max(taken, default=0) + 1


def versions(root: str, name: str | None = None) -> list[ModelVersion]:
    """Every version of every model, or of one.  Raises `StoreError` for a name that is not there."""
    known = place.listdir(root)
    if name is not None and name not in known:
        raise StoreError(f"{root}: no model {name!r}; known: {', '.join(known) or 'none'}")
    return [version for one in ([name] if name else known) for version in _of(root, one)]


def _of(root: str, name: str) -> list[ModelVersion]:
    aliases = {alias: history[-1] for alias, history in _aliases(root, name).items()}
    found = []
    for entry in place.listdir(place.join(root, name)):
        folder = place.join(root, name, entry)
        if place.exists(place.join(folder, "version.json")):
            made = ModelVersion.model_validate_json(place.read_text(place.join(folder, "version.json")))
            held = tuple(alias for alias, number in aliases.items() if number == made.version)
            found.append(made.model_copy(update={"folder": folder, "aliases": held}))
    return sorted(found, key=lambda version: version.version)


def _aliases(root: str, name: str) -> dict[str, list[int]]:
    """Alias → the versions it has named, newest last."""
    path = place.join(root, name, "aliases.json")
    return json.loads(place.read_text(path)) if place.exists(path) else {}


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
    find(root, name, str(version))
    aliases = _aliases(root, name)
    if aliases.get(alias, [None])[-1] != version:
        _write(root, name, aliases | {alias: [*aliases.get(alias, []), version]})
    return find(root, name, alias)


def rollback(root: str, name: str, alias: str) -> ModelVersion:
    """Let an alias name again what it named before.  Raises `StoreError` when there is nothing before."""
    versions(root, name)
    aliases = _aliases(root, name)
    history = aliases.get(alias, [])
    if len(history) < 2:
        raise StoreError(f"{name}@{alias}: nothing to roll back to; it has named {history or 'no version'} so far")
    _write(root, name, aliases | {alias: history[:-1]})
    return find(root, name, alias)


def _write(root: str, name: str, aliases: dict[str, list[int]]) -> None:
    place.write_text(place.join(root, name, "aliases.json"), json.dumps(aliases, indent=2))
