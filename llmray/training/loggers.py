"""Where the rows of a run go besides `metrics.jsonl`: one small adapter for each tool that people watch runs with.

It does not know what the rows tell.
"""

import os
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any, Protocol

from llmray.job.errors import JobError
from llmray.job.schema import Job
from llmray.store import place
from llmray.training.loop import Row


class Logger(Protocol):
    troubles: tuple[type[Exception], ...]
    """What it raises when rows cannot be taken: no reason to end a training."""

    def begin(self, step: int) -> None:
        """The run goes on from here; what was told of later steps is told again."""

    def log(self, row: Row) -> None: ...

    def close(self, status: str) -> None:
        """`status`: finished, stopped or failed."""


class TensorBoard:
    """Event files in `tensorboard/`, written by what Ray Tune brings along; to look: `pip install tensorboard`."""

    troubles: tuple[type[Exception], ...] = (OSError,)

    def __init__(self, job: Job) -> None:
        if not place.is_local(job.output):
            raise JobError("train.loggers: tensorboard writes to a local output only; take mlflow, or a local output")
        self.folder = place.join(job.output, "tensorboard")

    def begin(self, step: int) -> None:
        from tensorboardX import SummaryWriter

        self.writer = SummaryWriter(self.folder, purge_step=step + 1 if step else None, filename_suffix=f".{step}")

    def log(self, row: Row) -> None:
        for name, value in measured(row).items():
            self.writer.add_scalar(name, value, int(row["step"]))
        self.writer.flush()

    def close(self, status: str) -> None:
        self.writer.close()


class MLflow:
    """A run of the experiment `llmray`, the same one when the training goes on."""

    def __init__(self, job: Job) -> None:
        if not find_spec("mlflow"):
            raise JobError("train.loggers: mlflow is not installed; pip install 'llmray[mlflow]', or leave it out")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        self.troubles: tuple[type[Exception], ...] = (MlflowException, OSError)
        if not os.environ.get("MLFLOW_TRACKING_URI") and not place.is_local(job.output):
            raise JobError("train.loggers: mlflow keeps its database in a local output; set MLFLOW_TRACKING_URI")
        self.job, self.run = job, ""
        self.client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{job.output}/mlflow.db")

    def begin(self, step: int) -> None:
        if self.run:
            return
        found = self.client.get_experiment_by_name("llmray")
        experiment = found.experiment_id if found else self.client.create_experiment("llmray")
        mine = self.client.search_runs([experiment], f"tags.output = '{self.job.output}'", max_results=1)
        if mine and step:
            self.run = mine[0].info.run_id
            self.client.set_terminated(self.run, "RUNNING")
            return
        name = place.join(self.job.output).rpartition("/")[2]
        self.run = self.client.create_run(experiment, run_name=name, tags={"output": self.job.output}).info.run_id
        for key, value in flat(self.job.model_dump(mode="json", by_alias=True, exclude_defaults=True)).items():
            self.client.log_param(self.run, key, value)

    def log(self, row: Row) -> None:
        for name, value in measured(row).items():
            self.client.log_metric(self.run, name, value, step=int(row["step"]), synchronous=True)

    def close(self, status: str) -> None:
        self.client.set_terminated(self.run, {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}[status])


class Prometheus:
    """Gauges `ray_llmray_train_…` with the run's folder as a label, where Ray's other metrics are."""

    troubles: tuple[type[Exception], ...] = ()

    def __init__(self, job: Job) -> None:
        self.output = job.output
        self.gauges: dict[str, Any] = {}

    def begin(self, step: int) -> None:
        """Gauges have no past."""

    def log(self, row: Row) -> None:
        from ray.util.metrics import Gauge

        for name, value in row.items():
            if name not in self.gauges:
                self.gauges[name] = Gauge(f"llmray_train_{name}", tag_keys=("run",))
            self.gauges[name].set(value, {"run": self.output})

    def close(self, status: str) -> None:
        self.gauges.clear()


LOGGERS: Mapping[str, Callable[[Job], Logger]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "prometheus": Prometheus,
}


def loggers_of(job: Job) -> list[Logger]:
    """Those that the job asks for.  Raises `JobError` when one cannot be had."""
    return [LOGGERS[name](job) for name in job.train.loggers]


def measured(row: Row) -> Row:
    return {name: value for name, value in row.items() if name != "step"}


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted keys of a job."""
    if not isinstance(tree, Mapping):
        return {prefix: tree}
    return {k: v for key, value in tree.items() for k, v in flat(value, f"{prefix}.{key}" if prefix else key).items()}
