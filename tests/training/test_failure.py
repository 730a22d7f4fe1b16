"""Whose death ended a run, as Ray tells it."""

import re
from pathlib import Path

import pytest
import ray
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

from llmray.training.failure import Kind, of_workers

REFUSED = RuntimeError("Connection closed by peer [127.0.0.1]:1234")
"""What the others say once one is gone."""


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
    ],
)
def test_the_cause_is_named_with_its_worker(cause: Exception, kind: Kind, said: str) -> None:
    others = {0: REFUSED} if kind != "other" else {}
    error = of_workers({**others, 1: unhealthy(cause)}, 3)
    assert re.search(f"3 restarts: worker 1: .*{said}", str(error))
    assert error.args[1:3] == (kind, 1)
    assert "common causes" not in str(error)
    assert error.args[3] == "/nowhere/logs/train/ray-train-app-worker-ab12.log on 10.0.0.7"


def test_the_log_ends_with_what_was_printed_last(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    log = tmp_path / "train" / "ray-train-app-worker-ab12.log"
    log.write_text("".join(f"line {n}\n" for n in range(100)))
    (tmp_path / "worker-ab12-01-7.err").write_text("Segmentation fault\n")
    lines = of_workers({0: unhealthy(died("gone"), log)}, 0).args[3].splitlines()
    assert lines == [*(f"line {n}" for n in range(41, 100)), "Segmentation fault"]
