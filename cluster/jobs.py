"""The same verbs on another Ray cluster, through Ray Jobs.  It does not know what a verb does.

Only code and the resolved job file travel; secrets and data stay where they are.
"""

import asyncio
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from ray.job_submission import JobSubmissionClient

from llmray.job.errors import ClusterError
from llmray.job.load import dump
from llmray.job.results import JobsResult, JobStatus
from llmray.job.schema import Job

PACKAGES = ("llmray", "serve", "ui", "cluster")
ROOT = Path(__file__).resolve().parents[1]
POLL_S = 0.5

Line = Callable[[str], None]


def submit(verb: str, job: Job, address: str, *, follow: bool = True, on_line: Line = print) -> tuple[str, int]:
    """Run a verb there: the job's id and, when followed to its end, the verb's exit code (else 0).

    Raises `ClusterError` when the cluster cannot be reached or refuses.
    """
    client = _client(address)
    there = job.model_copy(update={"scale": job.scale.model_copy(update={"address": "auto"})})
    with tempfile.TemporaryDirectory(prefix="llmray-submit-") as scratch, _clear(address):
        folder = packed(there, Path(scratch))
        size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
        on_line(f"uploading {size / 1024:.0f} KiB: {', '.join(PACKAGES)}, job.yaml")
        identity = client.submit_job(
            entrypoint=f"python -m llmray {verb} job.yaml --json",
            runtime_env={"working_dir": str(folder)},
            metadata={"llmray": verb},
        )
    on_line(f"job {identity} on {address}")
    return identity, _followed(client, address, identity, on_line) if follow else 0


def packed(job: Job, scratch: Path) -> Path:
    """A folder with the packages and the resolved job, nothing else."""
    folder = copied(PACKAGES, scratch / "work")
    (folder / "job.yaml").write_text(dump(job), encoding="utf-8")
    return folder


def copied(packages: Sequence[str], folder: Path) -> Path:
    """Packages of this checkout, without what Python made of them."""
    for package in packages:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def list_jobs(address: str) -> JobsResult:
    """Jobs that the cluster knows, newest last."""
    client = _client(address)
    with _clear(address):
        found = sorted(client.list_jobs(), key=lambda details: details.start_time or 0)
    return JobsResult(jobs=tuple(_status(details) for details in found if details.submission_id))


def _status(details: Any) -> JobStatus:
    return JobStatus(
        id=details.submission_id,
        status=str(details.status.value),
        entrypoint=details.entrypoint,
        message=details.message or "",
    )


def logs(address: str, identity: str, follow: bool, on_line: Line) -> None:
    """A job's output so far, or to its end when followed."""
    client = _client(address)
    _require(client, address, identity)
    if follow:
        _followed(client, address, identity, on_line)
        return
    with _clear(address):
        for line in client.get_job_logs(identity).splitlines():
            on_line(line)


def stop(address: str, identity: str) -> None:
    """Ask a job to stop, and wait until it has."""
    client = _client(address)
    _require(client, address, identity)
    with _clear(address):
        client.stop_job(identity)
        while not client.get_job_status(identity).is_terminal():
            time.sleep(POLL_S)


def _client(address: str) -> JobSubmissionClient:
    with _clear(address):
        return JobSubmissionClient(address)


def _require(client: JobSubmissionClient, address: str, identity: str) -> None:
    with _clear(address):
        known = [details.submission_id for details in client.list_jobs() if details.submission_id]
    if identity not in known:
        raise ClusterError(f"{address}: no job {identity!r}; known: {', '.join(known) or 'none'}")


def _followed(client: JobSubmissionClient, address: str, identity: str, on_line: Line) -> int:
    with _clear(address):
        asyncio.run(_tail(client, identity, on_line))
        while not client.get_job_status(identity).is_terminal():
            time.sleep(POLL_S)
        details = client.get_job_info(identity)
    if details.driver_exit_code is not None:
        return int(details.driver_exit_code)
    if details.status.value == "SUCCEEDED":
        return 0
    raise ClusterError(f"job {identity} {details.status.value.lower()}: {details.message}")


async def _tail(client: JobSubmissionClient, identity: str, on_line: Line) -> None:
    waiting = ""
    async for piece in client.tail_job_logs(identity):
        *lines, waiting = (waiting + piece).split("\n")
        for line in lines:
            on_line(line)
    if waiting:
        on_line(waiting)


@contextmanager
def _clear(address: str) -> Iterator[None]:
    """What Ray and HTTP raise on the way to a cluster, in words."""
    try:
        yield
    except (ConnectionError, requests.exceptions.RequestException) as error:
        raise ClusterError(
            f"{address}: no Ray dashboard answers there; it is the address that `ray start --head` prints, usually"
            " http://HOST:8265"
        ) from error
    except (RuntimeError, ValueError) as error:
        refused = any(word in str(error) for word in ("401", "403", "Unauthorized", "token"))
        hint = "; the cluster wants its token in RAY_AUTH_TOKEN, with RAY_AUTH_MODE=token" if refused else ""
        raise ClusterError(f"{address}: {str(error).splitlines()[0]}{hint}") from error
