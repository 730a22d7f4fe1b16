"""Rows reach the tools that people watch runs with; a tool that is missing is named."""

import struct
from importlib.util import find_spec
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event  # type: ignore[import-untyped]

from llmray.job.errors import JobError
from llmray.job.load import load
from llmray.job.schema import Job
from llmray.training import loggers
from llmray.training.loggers import loggers_of


def job_of(output: object, *names: str) -> Job:
    return load({"task": "causal_lm", "train": {"loggers": names, "steps": 3}, "output": str(output)})


def told(job: Job, begin: int, *steps: int) -> None:
    """A run from a step on: of step n it tells a loss of 1/n."""
    for logger in loggers_of(job):
        logger.begin(begin)
        for step in steps:
            logger.log({"step": step, "loss": 1 / step})
        logger.close("finished")


def events(folder: Path) -> list[Event]:
    """Records of event files: length, its checksum, the bytes, their checksum."""
    found = []
    for file in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns):
        data = file.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            found.append(Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return found


def test_tensorboard_gets_every_row_and_is_told_where_a_run_goes_on(tmp_path: Path) -> None:
    told(job_of(tmp_path, "tensorboard"), 0, 1, 2)
    told(job_of(tmp_path, "tensorboard"), 1, 2, 4)
    found = events(tmp_path / "tensorboard")
    assert [(e.step, e.summary.value[0].tag, e.summary.value[0].simple_value) for e in found if e.summary.value] == [
        (1, "loss", 1),
        (2, "loss", 0.5),
        (2, "loss", 0.5),
        (4, "loss", 0.25),
    ]
    assert [e.step for e in found if e.session_log.status] == [2]  # from there on, what was known is forgotten


@pytest.mark.skipif(not find_spec("mlflow"), reason="mlflow is not installed: pip install 'llmray[mlflow]'")
def test_mlflow_keeps_one_run_for_one_training(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    told(job_of(tmp_path, "mlflow"), 0, 1, 2)
    told(job_of(tmp_path, "mlflow"), 2, 4)
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("llmray")
    assert experiment
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == (tmp_path.name, "FINISHED")
    assert run.data.params["train.steps"] == "3"
    assert [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "loss")] == [
        (1, 1),
        (2, 0.5),
        (4, 0.25),
    ]


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    with pytest.raises(JobError, match=r"mlflow is not installed; pip install 'llmray\[mlflow\]'"):
        loggers_of(job_of("runs/x", "mlflow"))


def test_event_files_are_local() -> None:
    with pytest.raises(JobError, match=r"train\.loggers: tensorboard writes to a local output only"):
        loggers_of(job_of("memory://runs/x", "tensorboard"))
