"""Whose death ended a run, as Ray tells it."""

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

from llmray.job.errors import DataError
from llmray.job.load import load
from llmray.job.schema import Job
from llmray.store.journal import Progress
from llmray.training.failure import Kind, of_workers
from llmray.training.telling import Watch

REFUSED = RuntimeError("Connection closed by peer [127.0.0.1]:1234")
"""What the others say once one is gone."""
LESS = (
    "It took 8 rows at a time; train.accumulate=4 takes 4, train.accumulate=8 takes 2, train.accumulate=16 takes 1."
    " Or lower train.batch_size, "
)


def job_of(output: Path = Path("/nowhere"), *overrides: str) -> Job:
    """Two workers that take 8 rows at a time."""
    train, scale = {"steps": 5, "batch_size": 32, "accumulate": 2}, {"workers": 2, "max_failures": 3}
    base = {"task": "qa", "model": {"from": "new:bert-tiny"}, "data": {"train": "a.json"}}
    return load({**base, "train": train, "scale": scale, "output": str(output)}, overrides)


def unhealthy(cause: Exception, log: object = "/nowhere/logs/train/ray-train-app-worker-ab12.log") -> Exception:
    info = f"Worker(\n  node_ip='10.0.0.7',\n  pid=7,\n  log_file_path='{log}',\n)"
    return WorkerHealthCheckFailedError(f"A worker health check failed.\nWorker info: {info}", failure=cause)


def died(said: str) -> ray.exceptions.ActorDiedError:
    error = ray.exceptions.ActorDiedError()
    error.error_msg = said
    return error


@pytest.mark.parametrize(
    ("cause", "kind", "said"),
    [
        (died("dead because its worker process has died. Some common causes: many"), "worker lost", "dmesg"),
        (died("The actor died because its node has died. Node Id: 5"), "node lost", "lost with its node: .*Node Id: 5"),
        (ray.exceptions.OutOfMemoryError("killed: memory low"), "out of memory", "out of memory: killed: memory low"),
        (ValueError("odd"), "other", "ValueError: odd"),
        (AssertionError(), "other", "AssertionError\n"),
    ],
)
def test_the_cause_is_named_with_its_worker(cause: Exception, kind: Kind, said: str) -> None:
    others = {0: REFUSED} if kind != "other" else {}
    error = of_workers({**others, 1: unhealthy(cause)}, job_of(), list)
    assert re.search(f"3 restarts: worker 1: .*{said}", str(error))
    assert error.args[1:3] == (kind, 1)
    assert "common causes" not in str(error)
    assert (LESS in str(error)) is (kind in ("out of memory", "worker lost"))
    assert error.args[3] == "/nowhere/logs/train/ray-train-app-worker-ab12.log on 10.0.0.7"


@pytest.mark.parametrize(
    ("gone", "kind", "said"),
    [
        ([], "worker lost", "lost touch with another one: "),
        (["10.0.0.9"], "node lost", r"whose node is gone \(10\.0\.0\.9\): "),
    ],
)
def test_where_only_those_who_missed_one_are_known_it_is_told_that_one_was_lost(
    gone: list[str], kind: Kind, said: str
) -> None:
    error = of_workers({1: REFUSED}, job_of(), lambda: gone)
    assert re.search(f"worker 1: .*{said}.*by peer", str(error))
    assert error.args[1] == kind


def test_the_log_ends_with_what_was_printed_last(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    log = tmp_path / "train" / "ray-train-app-worker-ab12.log"
    log.write_text("".join(f"line {n}\n" for n in range(100)))
    (tmp_path / "worker-ab12-01-7.err").write_text("Segmentation fault\n")
    lines = of_workers({0: unhealthy(died("gone"), log)}, job_of(), list).args[3].splitlines()
    assert lines == [*(f"line {n}" for n in range(41, 100)), "Segmentation fault"]


def left(output: Path, error: Exception, *told: dict[str, Any]) -> Any:
    """`failure.json` of a run that told this and ended with an error."""
    with suppress(type(error)), Watch(job_of(output), "run", Progress.silent()) as watch:
        watch.take(list(told))
        raise error
    return json.loads((output / "failure.json").read_text())


FAILED = ({"failed": 1, "log": "torn row"}, {"failed": 0, "log": "Connection closed"})


def test_an_error_of_a_worker_is_shown_with_the_end_of_its_log(tmp_path: Path) -> None:
    found = left(tmp_path, DataError("a.json, line 3: torn"), *FAILED)
    assert (found["kind"], found["worker"], found["log"]) == ("data", 1, "torn row")
    assert "torn row" in (tmp_path / "failure.html").read_text()


def test_logs_from_before_a_restart_are_not_taken_for_those_of_the_end(tmp_path: Path) -> None:
    found = left(tmp_path, DataError("gone"), *FAILED, {"began_at": 4})
    assert (found["worker"], found["log"]) == (None, "")


def test_an_odd_error_of_a_worker_is_shown_with_the_log_of_that_worker(tmp_path: Path) -> None:
    found = left(tmp_path, of_workers({0: RuntimeError("odd")}, job_of(), list), *FAILED)
    assert (found["kind"], found["worker"], found["log"]) == ("other", 0, "Connection closed")
