"""The same verbs on another Ray cluster, through Ray Jobs.  It does not know what a verb does.

Only code and the resolved job file travel; secrets and data stay where they are.
"""

import asyncio
import secrets
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from llmray.job.errors import ClusterError
from llmray.job.load import dump
from llmray.job.results import JobsResult, JobStatus
from llmray.job.schema import Job
from llmray.store import place

PACKAGES = ("llmray", "serve", "ui", "cluster")
ROOT = Path(__file__).resolve().parents[1]
POLL_S = 0.5
NO_AGENT, AGENT_WITHIN_S = "No available agent", 60
"""What Ray answers as long as no node has said that it can start jobs."""
STOPS_WITHIN_S = 120
"""Time that a stopped job has to write its checkpoint; Ray's own 3 s are too short for that."""
ENVIRONMENT = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOPS_WITHIN_S), "PYTHONUNBUFFERED": "1"}
MOST_BYTES = 10 * 2**20
"""The code takes a tenth of it."""

Line = Callable[[str], None]


def submit(
    verb: str, job: Job, address: str, *, retries: int = 0, follow: bool = True, on_line: Line = print
) -> tuple[str, int]:
    """Run a verb there: the job's id and, when followed to its end, the verb's exit code (else 0).

    `retries`: how often it is run again after a failure.  Raises `ClusterError` when the cluster cannot be reached or
    refuses.
    """
    there = job.model_copy(update={"scale": job.scale.model_copy(update={"address": "auto"})})
    files = {"job.yaml": dump(there)}
    words = f"{verb} job.yaml --json"
    return send(words, files, address, output=job.output, retries=retries, follow=follow, on_line=on_line)


def send(
    words: str,
    files: Mapping[str, str],
    address: str,
    *,
    output: str | None = None,
    retries: int = 0,
    follow: bool = True,
    on_line: Line = print,
) -> tuple[str, int]:
    """Run a command line of llmray there, beside these files.  It goes on when whoever follows it goes away.

    What it prints is kept as `logs/ID.log` under `output`; what has an output can be retried.
    """
    identity = f"{words.split()[0]}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
    log = shlex.quote(place.join(output, "logs", f"{identity}.log")) if output else ""
    keep = f"-m cluster.keep {log} {retries} python " if output else ""
    client = _client(address)
    with tempfile.TemporaryDirectory(prefix="llmray-submit-") as scratch, _clear(address):
        folder = packed(files, Path(scratch))
        on_line(f"uploading {_size(folder) / 1024:.0f} KiB: {', '.join((*PACKAGES, *files))}")
        _submit(
            client,
            submission_id=identity,
            entrypoint=f"python {keep}-m llmray {words}",
            runtime_env={"working_dir": str(folder), "env_vars": ENVIRONMENT},
            metadata={"llmray": words.split()[0]},
        )
    on_line(f"job {identity} on {address}; `llmray jobs logs {identity} --address {address} --follow` finds it again")
    return identity, _followed(client, address, identity, on_line) if follow else 0


def _submit(client: JobSubmissionClient, **job: Any) -> None:
    """A head that has just started, or is very busy, has no agent at first that could start a job."""
    until = time.monotonic() + AGENT_WITHIN_S
    while True:
        try:
            client.submit_job(**job)
            return
        except RuntimeError as error:
            if NO_AGENT not in str(error) or time.monotonic() > until:
                raise
        time.sleep(POLL_S)


def packed(files: Mapping[str, str], scratch: Path) -> Path:
    """A folder with the packages' code and these files, nothing else.  Raises `ClusterError` where that is too much."""
    folder = copied(PACKAGES, scratch / "work")
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    if _size(folder) > MOST_BYTES:
        largest = max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
        raise ClusterError(
            f"{_size(folder) / 2**20:.1f} MiB to upload, of which {largest.relative_to(folder)} is the largest part;"
            f" code takes less than {MOST_BYTES / 2**20:.0f}: keep data in storage that the cluster reads"
        )
    return folder


def copied(packages: Sequence[str], folder: Path) -> Path:
    """The code of packages of this checkout: no data or secrets that lie beside it, nor what Python made of it."""
    for package in packages:
        for path in sorted((ROOT / package).rglob("*.py")):
            target = folder / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    return folder


def _size(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


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
    """Ask a job to stop, which in training means a checkpoint first, and wait until it has."""
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
        _wait_for_start(client, identity, on_line)
        asyncio.run(_tail(client, identity, on_line))
        while not client.get_job_status(identity).is_terminal():
            time.sleep(POLL_S)
        details = client.get_job_info(identity)
    if details.driver_exit_code is not None:
        return int(details.driver_exit_code)
    if details.status.value == "SUCCEEDED":
        return 0
    raise ClusterError(f"job {identity} {details.status.value.lower()}: {details.message}")


def _wait_for_start(client: JobSubmissionClient, identity: str, on_line: Line) -> None:
    """While a job waits, what it waits for."""
    told = ""
    while (details := client.get_job_info(identity)).status.value == "PENDING":
        if (details.message or "") != told:
            on_line(told := details.message or "")
        time.sleep(POLL_S)


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
    except AuthenticationError as error:
        raise ClusterError(
            f"{address}: {str(error).splitlines()[0]}; the cluster wants its token in RAY_AUTH_TOKEN, with"
            " RAY_AUTH_MODE=token"
        ) from error
    except (RuntimeError, ValueError) as error:
        raise ClusterError(f"{address}: {str(error).splitlines()[0]}") from error
