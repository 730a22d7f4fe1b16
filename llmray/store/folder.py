"""Run folders: who may write into one, and when it counts as done.

It does not know what a run does.  `job.yaml` is written first and says whose folder it is; `result.json` is written
last and is the commit.
"""

import json
import shlex
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from llmray.job.errors import JobError, StoreError
from llmray.job.load import dump, load
from llmray.job.results import Result
from llmray.job.schema import Job
from llmray.store import place

JOB, RESULT, CHECKPOINTS = "job.yaml", "result.json", "checkpoints"
SECTIONS = ("task", "model", "data", "train", "scale")
NOT_IDENTITY = (
    *("scale.address", "scale.max_failures"),
    *("train.log_every", "train.loggers", "train.keep_checkpoints", "train.keep_best"),
)
"""Keys that change how a run is watched or looked after, not what comes out of it."""


def settled(output: str) -> str:
    """An output as workers elsewhere on this machine must spell it: local paths absolute."""
    return str(Path(output.removeprefix("file://")).absolute()) if place.is_local(output) else output


def claim(output: str, job: Job, sections: Sequence[str] = SECTIONS) -> Literal["new", "resume", "done"]:
    """How far a job came in a run folder; changes nothing, so that a job can still be refused (then `begin`).

    Raises `StoreError`, naming the keys that differ, when the folder holds the work of another job.
    """
    path = place.join(output, JOB)
    if not place.exists(path):
        return "new"
    worth = place.exists(place.join(output, RESULT)) or bool(place.listdir(place.join(output, CHECKPOINTS)))
    with tempfile.TemporaryDirectory() as scratch:  # a copy: the file may be in an object store
        copy = Path(scratch, JOB)
        copy.write_text(place.read_text(path), encoding="utf-8")
        differing = differences(copy, job, sections, path)
    if differing and worth:
        raise StoreError(
            f"{output} holds the run of another job:\n{differing}\n"
            "Set these back, choose another folder with `output=…`, or remove the old one"
        )
    if differing:
        return "new"
    return "done" if place.exists(place.join(output, RESULT)) else "resume"


def begin(output: str, job: Job) -> None:
    """Say whose folder it is from now on."""
    place.write_text(place.join(output, JOB), dump(job))


def mark_done(output: str, result: Result) -> None:
    """Commit a run: from now on the same command only returns this result."""
    place.write_text(place.join(output, RESULT), result.model_dump_json(indent=2))


def result_of(output: str) -> dict[str, Any]:
    """The fields of the result that `mark_done` wrote."""
    fields: dict[str, Any] = json.loads(place.read_text(place.join(output, RESULT)))
    return fields


def command(output: str) -> str:
    """What to type, in the folder where a run was begun, to go on with it."""
    path = place.join(output, JOB)
    return f"llmray train {shlex.quote(path) if place.is_local(path) else f'JOB.yaml  (a copy of {path})'}"


def differences(old: Path | Mapping[str, Any], job: Job, sections: Sequence[str], where: str) -> str:
    """Keys of `sections` that decide what comes out and are not as in an older job, one a line.

    Raises `StoreError` when what is there is no job.
    """
    try:
        there, here = _identity(load(old), sections), _identity(job, sections)
    except JobError as error:
        raise StoreError(f"{where}: not a job of this version of llmray; choose another output\n{error}") from None
    keys = [key for key in {**there, **here} if there.get(key) != here.get(key)]
    return "\n".join(f"  {key}: {there.get(key)!r} there, {here.get(key)!r} in this job" for key in keys)


def _identity(job: Job, sections: Sequence[str]) -> dict[str, Any]:
    tree = job.model_dump(mode="json", by_alias=True)
    flat = dict(_flat({name: tree[name] for name in sections}))
    return {key: value for key, value in flat.items() if key not in NOT_IDENTITY}


def _flat(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, Mapping) and tree:
        for key, value in tree.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(tree, list) and tree and isinstance(tree[0], Mapping):
        for position, value in enumerate(tree):
            yield from _flat(value, f"{prefix}.{position}")
    else:
        yield prefix, tree
