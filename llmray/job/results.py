"""What each verb returns: plain frozen values that print as JSON.  It knows no verb's inner working."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Result(BaseModel):
    model_config = ConfigDict(frozen=True)


class PrepareResult(Result):
    store: str
    """Folder of the prepared blocks."""
    rows: int
    """Blocks written."""
    tokens: int
    """Tokens in them, padding excluded."""
    documents: int
    """Records of the sources that are in them."""
    dropped: int
    """Records left out by a rule of `data.clean`; the manifest and `prepare.html` say which."""
    quarantined: int
    """Records that could not be read."""
    seconds: float


class TrainResult(Result):
    run: str
    """Run folder."""
    model: str
    """Folder of the final model, in Hugging Face layout."""
    steps: int
    """Optimiser steps of the whole run, resumed parts included."""
    model_step: int
    """Step after which the model's weights were as they are: the last, or that of the best checkpoint."""
    metrics: dict[str, float]
    """Last value of each metric; `eval_loss` is the model's."""
    seconds: float


class TuneResult(Result):
    run: str
    best: str
    """Path of `best.yaml`, a job file for `train`."""
    best_values: dict[str, float | int | str | bool]
    """The searched keys' best values."""
    metric: str
    value: float
    trials: int
    stopped_early: int
    """Trials that ASHA ended before their last step."""
    seconds: float


class EvaluateResult(Result):
    report: str
    """Path of `report.json`."""
    task: str
    rows: int
    metrics: dict[str, float]
    baseline: dict[str, float]
    """The same metrics for the task's naive baseline."""
    seconds: float


class ModelVersion(Result):
    name: str
    version: int
    task: str
    folder: str
    aliases: tuple[str, ...] = ()
    metrics: dict[str, float] = {}
    created: str
    """UTC time of registration, ISO 8601."""
    sha256: str
    """Hash of the weights file."""


class ModelsResult(Result):
    versions: tuple[ModelVersion, ...]


class ExportResult(Result):
    folder: str
    """Folder of the form, in the model's own; this is its `export.json`."""
    engine: Literal["ctranslate2", "onnx"]
    precision: Literal["float32", "int8"]
    task: str
    parent: str
    """The model that it is a form of, as it was given."""
    parent_sha256: str
    """Hash of that model's weights."""
    metric: str
    """The task's headline metric, of both."""
    before: float
    """The model's, on the evaluation rows."""
    after: float
    """The form's, on the same rows."""
    rows: int
    parent_rows_per_s: float
    """Evaluation rows that the model answered in a second, on the machine of the export."""
    rows_per_s: float
    """Those that the form answered."""
    parent_bytes: int
    bytes: int
    files: dict[str, str]
    """File → sha256."""
    needs_vnni: bool
    """Whether it gives these figures only on processors that add products of int8 without overflow."""
    made_with: dict[str, str]
    """Package → version."""
    created: str
    """UTC, ISO 8601."""

    @property
    def speedup(self) -> float:
        return self.rows_per_s / self.parent_rows_per_s


class EndpointStatus(Result):
    route: str
    task: str
    url: str
    model: str
    status: str
    replicas: int
    requests_per_s: float | None = None
    """In the last second; None, as the next two, where HAProxy cannot be asked from this machine."""
    response_ms: float | None = None
    """Mean of the last 1,024 answers, queueing included."""
    failed: int | None = None
    """Answers of 500 and above since the start."""
    keys: str = ""
    """File of the API keys that it asks for; empty: none."""


class ServeResult(Result):
    url: str
    """Base URL of every route."""
    endpoints: tuple[EndpointStatus, ...]


class ApiKey(Result):
    id: str
    name: str
    created: str
    """UTC, ISO 8601."""
    revoked: str | None = None
    """When it was made worthless."""


class NewApiKey(Result):
    id: str
    name: str
    key: str
    """What requests bring as `Authorization: Bearer KEY`; it is kept nowhere and cannot be told again."""


class KeysResult(Result):
    keys: tuple[ApiKey, ...]


class UiResult(Result):
    url: str


class JobStatus(Result):
    id: str
    status: str
    entrypoint: str
    message: str = ""


class JobsResult(Result):
    jobs: tuple[JobStatus, ...]


class ClusterResult(Result):
    name: str
    provider: str
    address: str
    """Where `submit` and `jobs` find it once the tunnel is open; empty: no head runs."""
    tunnel: str
    """Command that opens the way from this machine to the dashboard, which only the head itself reaches."""
    token: str
    """What lets this machine's programs in: variables to set, never the token itself."""
    nodes: int
    """Machines that run, the head included."""
    gpus: int
    per_hour: float | None = None
    """What they cost, by the prices in the cluster file."""
    notes: tuple[str, ...] = ()
    """What is left to do by hand."""


class ClusterGone(Result):
    name: str
    left: tuple[str, ...]
    """What the cloud account still has of it."""
    notes: tuple[str, ...] = ()
    """How to see for oneself that nothing is left."""


class Finding(Result):
    fault: str
    """What is wrong, and the way out."""
    node: str = ""
    """Where; empty: the cluster as a whole."""


class CheckResult(Result):
    findings: tuple[Finding, ...]
    nodes: int
    gpus: int
    worker_gib: float | None = None
    """Memory that one training worker of the job takes, estimated."""
    hours: float | None = None
    """Time that the job's steps take on its GPUs, estimated; None where its steps or FLOPs are not known beforehand."""
    cost: float | None = None
    """Of the cluster file's head and workers in that time, by their prices."""


class FilesResult(Result):
    files: tuple[str, ...]
    commands: tuple[str, ...]
    """What reads them."""


class DemoResult(Result):
    metrics: dict[str, dict[str, float]]
    """Model → metric → value."""
    urls: dict[str, str]
    answers: dict[str, str]
    """Route → what it answered to one example."""
    seconds: float
