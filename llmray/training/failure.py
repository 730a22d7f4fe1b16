"""What a run that failed leaves behind: `failure.json` and `failure.html`, its cause in words and the way on.

It does not know how a run is done.
"""

import re
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import ray

from llmray.job.errors import ClusterError, DataError, LlmrayError, ModelError, StoreError
from llmray.job.results import Result
from llmray.job.schema import Job
from llmray.store import folder, journal, page, place
from llmray.stream.errors import chain
from llmray.training.attempt import OtherJobError
from llmray.training.loop import DivergedError
from llmray.training.memory import MemoryExhaustedError, smaller

JSON, HTML = "failure.json", "failure.html"
LAST_ROWS, LOG_LINES = 10, 60
LOG = re.compile(r"node_ip='([^']*)'.*log_file_path='([^']*)'", re.DOTALL)
"""What Ray Train tells of a worker that no longer answers."""
PEER_GONE = re.compile(r"gloo|nccl|by peer", re.IGNORECASE)
"""How torch's two ways to talk say that somebody no longer does."""
RAYS_ADVICE = " Some common causes"
KILLED = " It crashed, or was killed, perhaps by the kernel for want of memory (`dmesg` says so). If so, take less:"

Kind = Literal[
    "out of memory", "diverged", "worker lost", "node lost", "data", "model", "another job", "storage", "cluster",
    "other",
]  # fmt: skip
KINDS: tuple[tuple[type[Exception], Kind], ...] = (
    *((MemoryExhaustedError, "out of memory"), (DivergedError, "diverged"), (DataError, "data")),
    *((ModelError, "model"), (OtherJobError, "another job"), (StoreError, "storage"), (OSError, "storage")),
    (ClusterError, "cluster"),
)


class WorkerLostError(LlmrayError):
    """A worker died once more than the job allows.  `args`: the message, the kind of loss, the worker's rank and what
    it said last."""

    def __init__(self, message: str, kind: Kind = "other", worker: int | None = None, log: str = "") -> None:
        super().__init__(message, kind, worker, log)

    def __str__(self) -> str:
        return str(self.args[0])


class Failure(Result):
    """`failure.json`."""

    kind: Kind
    message: str
    worker: int | None
    """Rank of the Ray worker that died or failed, where one did."""
    go_on: str
    """The command that goes on from the newest checkpoint."""
    time: str
    """UTC, ISO 8601."""
    rows: tuple[Mapping[str, Any], ...]
    """The last rows of `metrics.jsonl`."""
    log: str
    """The end of that worker's log."""


def leave(output: str, error: Exception, logs: Mapping[int, str]) -> str:
    """Write down why a run failed; gives the page's path.  `logs`: how those of workers that raised an error end, by
    rank, the first of them first."""
    kind: Kind = next((kind for kinds, kind in KINDS if isinstance(error, kinds)), "other")
    worker, log = next(iter(logs.items()), (None, ""))
    if isinstance(error, WorkerLostError):
        _, kind, worker, log = error.args
        log = log or logs.get(worker, "")
    failure = Failure(
        kind=kind,
        message=str(error) if isinstance(error, LlmrayError) else _named(error),
        worker=worker,
        go_on=folder.command(output),
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        rows=tuple(journal.read(place.join(output, journal.METRICS))[-LAST_ROWS:]),
        log=log,
    )
    place.write_text(place.join(output, JSON), failure.model_dump_json(indent=2))
    place.write_text(place.join(output, HTML), render(output, failure))
    return place.join(output, HTML)


def clear(output: str) -> None:
    """A run that ended well has not failed."""
    for name in (JSON, HTML):
        place.remove(place.join(output, name))


def render(output: str, failure: Failure) -> str:
    columns = list({key: None for row in failure.rows for key in row})
    sections = [
        page.paragraph(f"{output}, {failure.time}"),
        *map(page.paragraph, failure.message.splitlines()),
        page.heading("Go on from the newest checkpoint"),
        page.code(failure.go_on),
    ]
    if failure.rows:
        rows = [[row.get(column, "") for column in columns] for row in failure.rows]
        sections += [page.heading("The last metrics"), page.table(columns, rows)]
    if failure.log:
        sections += [page.heading(f"The end of worker {failure.worker}'s log"), page.code(failure.log)]
    return page.page(f"Training failed: {failure.kind}", sections)


def of_workers(failures: Mapping[int, Exception], job: Job, lost: Callable[[], Sequence[str]]) -> WorkerLostError:
    """Which worker's death ended a run: that of one that was lost, rather than of one that missed it afterwards.

    `lost` tells the nodes that have died meanwhile, where Ray knows of none but workers that missed one.
    """
    less = smaller(job.train, job.scale.workers)
    judged = [(rank, *_judged(error, less)) for rank, error in sorted(failures.items())]
    rank, kind, said = next((j for j in judged if j[1] != "other"), judged[0])
    if kind == "other" and PEER_GONE.search(said):
        gone = lost()
        kind = "node lost" if gone else "worker lost"
        where = f", whose node is gone ({', '.join(gone)})" if gone else ""
        said = f"lost touch with another one{where}: {said}"
    return WorkerLostError(
        f"training failed after {job.scale.max_failures} restarts: worker {rank}: {said}\n"
        "The newest checkpoint is kept; the same command goes on from there",
        kind,
        rank,
        _log_of(failures[rank]),
    )


def _judged(error: Exception, less: str) -> tuple[Kind, str]:
    """What became of a worker, in words; `less`: what would take less memory."""
    links = chain(error)
    for link in links:
        said = (str(link).strip() or _named(link)).splitlines()[-1].partition(RAYS_ADVICE)[0]
        if isinstance(link, ray.exceptions.OutOfMemoryError):
            return "out of memory", f"out of memory: {said}\n{less}"
        if isinstance(link, ray.exceptions.ActorDiedError):
            if "node has died" in said:
                return "node lost", f"lost with its node: {said}"
            return "worker lost", f"lost: {said}{KILLED}\n{less}"
    return "other", _named(links[-1])


def _named(error: BaseException) -> str:
    """An exception's class and text, as Python tells of it."""
    return "".join(traceback.format_exception_only(error)).strip()


def _log_of(error: Exception) -> str:
    """The end of what a worker wrote, on this machine; where that is, on another."""
    found = LOG.search(str(error))
    if not found:
        return ""
    machine, path = found.groups()
    return end_of(path) or f"{path} on {machine}"


def end_of(path: str) -> str:
    """The last lines of a Ray Train worker's log on this machine, and of what the worker printed."""
    worker = Path(path).stem.rpartition("-")[2]
    lines: deque[str] = deque(maxlen=LOG_LINES)
    for file in (Path(path), *sorted(Path(path).parent.parent.glob(f"worker-{worker}-*"), reverse=True)):
        if file.exists():
            with file.open(errors="replace") as text:
                lines.extend(text)
    return "".join(lines)
