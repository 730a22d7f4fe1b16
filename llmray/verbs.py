"""One function a verb: the only place, with `showcase`, where rooms meet.

It does not know about command lines.  A verb judges its job first and imports what is heavy only then.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal, TypeAlias

from llmray.job.errors import JobError, ThresholdError
from llmray.job.load import load, require
from llmray.job.results import (
    ApiKey,
    CheckResult,
    ClusterGone,
    ClusterResult,
    EvaluateResult,
    ExportResult,
    FilesResult,
    JobsResult,
    KeysResult,
    ModelsResult,
    ModelVersion,
    NewApiKey,
    PrepareResult,
    ServeResult,
    TrainResult,
    TuneResult,
    UiResult,
)
from llmray.job.schema import Endpoint, Job
from llmray.store.journal import Progress

JobLike: TypeAlias = Job | Mapping[str, Any] | str | Path | None
ClusterLike: TypeAlias = Mapping[str, Any] | str | Path
REMOTE_VERBS = ("prepare", "train", "tune", "evaluate", "serve")


def _session(job: Job, *, nice: bool = True) -> AbstractContextManager[str]:
    from cluster.session import session

    return session(job.scale, nice=nice)


def prepare(job: JobLike, *overrides: str, progress: Progress | None = None) -> PrepareResult:
    """Tokenise and pack a corpus into a store of blocks (Ray Data)."""
    judged = load(job, overrides)
    require(judged, "task", "data.train")
    from llmray.stream.prepare import prepare as run

    with _session(judged):
        return run(judged, progress or Progress())


def train(job: JobLike, *overrides: str, progress: Progress | None = None) -> TrainResult:
    """Pretrain or fine-tune a model (Ray Data → Ray Train); the same command again resumes or does nothing."""
    judged = load(job, overrides)
    require(judged, "task", "model.from", "data.train")
    from llmray.training.plan import needs_ray
    from llmray.training.run import train as run

    with _session(judged) if needs_ray(judged) else nullcontext():
        return run(judged, progress or Progress())


def tune(job: JobLike, *overrides: str, progress: Progress | None = None) -> TuneResult:
    """Search learning rate, batch size or any other key (Ray Tune, ASHA)."""
    judged = load(job, overrides)
    require(judged, "task", "model.from", "data.train", "tune")
    if judged.tune and judged.tune.metric.startswith("eval_"):
        require(judged, "data.eval")
    from llmray.search.run import tune as run

    with _session(judged):
        return run(judged, progress or Progress())


def evaluate(job: JobLike, *overrides: str, progress: Progress | None = None) -> EvaluateResult:
    """Score a model on held-out rows beside the task's naive baseline.

    Raises `ThresholdError`, after the report is written, when a metric misses the job's thresholds.
    """
    judged = load(job, overrides)
    require(judged, "model.from", "data.eval")
    from llmray.scoring.report import misses
    from llmray.scoring.run import evaluate as run

    with _session(judged):
        result = run(judged, progress or Progress())
    if missed := misses(result.metrics, judged.evaluate.thresholds):
        raise ThresholdError("; ".join(missed) + f"; the report is {result.report}")
    return result


def export(
    model: str,
    to: Literal["ctranslate2", "onnx"],
    job: JobLike = None,
    *overrides: str,
    int8: bool = False,
    progress: Progress | None = None,
) -> ExportResult:
    """Make a faster form of a model, in its folder, that answers `data.eval` as well as the model does.

    Raises `ThresholdError` when it loses more than `evaluate.tolerance_percent`; nothing is kept then.
    """
    judged = load(job, overrides)
    require(judged, "data.eval")
    if to not in ("ctranslate2", "onnx"):
        raise JobError(f"export: unknown form {to!r}; allowed: ctranslate2, onnx")
    from llmray.model.export import export as run
    from llmray.model.registry import nearest
    from llmray.scoring.run import batches

    with _session(judged):
        return run(
            model, to, lambda record: batches(judged, record), judged.evaluate.tolerance_percent,
            progress or Progress(), int8=int8, options=judged.task, registry_root=nearest(judged.output),
        )  # fmt: skip


def models_list(output: str, name: str | None = None) -> ModelsResult:
    """Versions and aliases in the registry nearest to `output`."""
    from llmray.model import registry

    return ModelsResult(versions=tuple(registry.versions(registry.nearest(output), name)))


def models_register(output: str, name: str, folder: str) -> ModelVersion:
    """Copy a run's model, with the metrics of its evaluation, or any model folder, in as the next version of `name`."""
    import json

    from llmray.model import registry
    from llmray.store import place

    report = place.join(folder, "evaluation", "report.json")
    metrics = json.loads(place.read_text(report))["metrics"] if place.exists(report) else {}
    model = place.join(folder, "model")
    return registry.register(registry.nearest(output), name, model if place.exists(model) else folder, metrics)


def models_promote(output: str, name: str, version: int, alias: str) -> ModelVersion:
    """Let an alias name a version."""
    from llmray.model import registry

    return registry.promote(registry.nearest(output), name, version, alias)


def models_rollback(output: str, name: str, alias: str) -> ModelVersion:
    """Let an alias name again what it named before."""
    from llmray.model import registry

    return registry.rollback(registry.nearest(output), name, alias)


def serve(
    job: JobLike,
    *overrides: str,
    progress: Progress | None = None,
    until: Callable[[ServeResult], None] | None = None,
) -> ServeResult:
    """Deploy every endpoint of `serve.endpoints`, or `model` and `task` where none is given (Ray Serve).

    On a cluster that was joined, the endpoints stay when this returns.  On one started here they live as long as
    `until(result)` runs.
    """
    judged = _with_endpoints(load(job, overrides))
    from llmray.model.registry import nearest
    from serve.deploy import deploy, prepare_environment, shutdown

    settled = prepare_environment(judged.serve, judged.output, joins=judged.scale.address is not None)
    with _session(judged, nice=False):
        result = deploy(settled, nearest(judged.output), progress or Progress())
        if judged.scale.address is None:
            try:
                if until:
                    until(result)
            finally:
                shutdown()
    return result


def _with_endpoints(job: Job) -> Job:
    if job.serve.endpoints:
        return job
    require(job, "model.from", "task")
    assert job.model is not None
    assert job.task is not None
    options = job.model.model_dump(exclude={"from_"})
    endpoint = Endpoint(model=job.model.from_, task=job.task, **options)
    return job.model_copy(update={"serve": job.serve.model_copy(update={"endpoints": (endpoint,)})})


def keys_create(name: str, job: JobLike, *overrides: str) -> NewApiKey:
    """A new API key for the endpoints of a job, which from their next start ask for one."""
    from serve import keys

    path = _keys_file(job, overrides)
    if not keys.listed(path):
        Progress().note(f"The first key of {path}: endpoints that run already ask for it once they are served again")
    return keys.create(path, name)


def keys_list(job: JobLike, *overrides: str) -> KeysResult:
    """Every API key of a job, revoked ones included; the keys themselves are kept nowhere."""
    from serve import keys

    return KeysResult(keys=keys.listed(_keys_file(job, overrides)))


def keys_revoke(identity: str, job: JobLike, *overrides: str) -> ApiKey:
    """Make an API key worthless, within seconds, on every replica."""
    from serve import keys

    return keys.revoke(_keys_file(job, overrides), identity)


def _keys_file(job: JobLike, overrides: Sequence[str]) -> str:
    from serve.environment import keys_file

    judged = load(job, overrides)
    return keys_file(judged.serve, judged.output)


def serve_status(address: str) -> ServeResult:
    """What is deployed on a running cluster."""
    from serve.deploy import status

    with _session(load({"scale": {"address": address}})):
        return status()


def serve_stop(address: str) -> None:
    """Take every endpoint of a running cluster down."""
    from serve.deploy import shutdown

    with _session(load({"scale": {"address": address}})):
        shutdown()


def ui(
    url: str, *, key: str = "", host: str = "127.0.0.1", port: int | None = None, until: Callable[[], None]
) -> UiResult:
    """The web page in front of the endpoints at `url`, as long as `until()` runs.

    With `key`, an API key, whoever opens the page may ask without one of their own.
    """
    from ui.app import launch

    page, close = launch(url, host, port, key=key)
    try:
        Progress().note(f"The page is at {page}")
        until()
    finally:
        close()
    return UiResult(url=page)


def submit(
    verb: str,
    job: JobLike,
    *overrides: str,
    address: str,
    retries: int = 0,
    follow: bool = True,
    progress: Progress | None = None,
) -> tuple[str, int]:
    """Run a verb on a remote Ray cluster (Ray Jobs): its job id, and its exit code (0 when not followed).

    `retries`: how often a verb that failed is run again there, whoever follows; training goes on from its newest
    checkpoint.
    """
    if retries < 0:
        raise JobError(f"submit: retries: found {retries}; allowed: 0 or more")
    if verb not in REMOTE_VERBS:
        raise JobError(f"submit: unknown verb {verb!r}; allowed: {', '.join(REMOTE_VERBS)}")
    judged = load(job, overrides)
    from cluster.jobs import submit as run

    return run(verb, judged, address, retries=retries, follow=follow, on_line=(progress or Progress()).note)


def jobs_list(address: str) -> JobsResult:
    """Jobs that a cluster knows."""
    from cluster.jobs import list_jobs

    return list_jobs(address)


def jobs_logs(address: str, job_id: str, *, follow: bool, on_line: Callable[[str], None]) -> None:
    """A job's output, to its end when followed."""
    from cluster.jobs import logs

    logs(address, job_id, follow, on_line)


def jobs_stop(address: str, job_id: str) -> None:
    """Stop a job."""
    from cluster.jobs import stop

    stop(address, job_id)


def cluster_up(cluster: ClusterLike, *overrides: str) -> ClusterResult:
    """Bring a cluster up as its file says, or in line with it."""
    from cluster.provision import up
    from cluster.spec import load as load_cluster

    return up(load_cluster(cluster, overrides))


def cluster_down(cluster: ClusterLike, *overrides: str) -> ClusterGone:
    """Take a cluster down with all that it owns, and say what is left."""
    from cluster.provision import down
    from cluster.spec import load as load_cluster

    return down(load_cluster(cluster, overrides))


def cluster_status(cluster: ClusterLike, *overrides: str) -> ClusterResult:
    """What runs of a cluster, what it costs, and how to reach it."""
    from cluster.provision import status
    from cluster.spec import load as load_cluster

    return status(load_cluster(cluster, overrides))


def cluster_files(cluster: ClusterLike, verb: str, job: str, folder: str) -> FilesResult:
    """Write what other tools need to run a verb on such a cluster: for `kubectl` a RayJob or, to serve, a RayService;
    a task for SkyPilot."""
    from cluster.files import write
    from cluster.spec import load as load_cluster

    spec, judged = load_cluster(cluster), load(job)
    if verb == "serve" and spec.provider == "kubernetes":
        from cluster.files import write_service
        from serve.declared import config, environment

        return write_service(spec, config(_with_endpoints(judged)), environment(), folder)
    return write(spec, verb, judged, job, folder)


def cluster_check(
    cluster: ClusterLike | None = None,
    job: JobLike = None,
    *,
    address: str = "auto",
    progress: Progress | None = None,
) -> CheckResult:
    """Everything that is wrong with a running cluster and, with a job, whether it fits there."""
    from cluster.check import check, check_there
    from cluster.spec import load as load_cluster

    spec, judged = load_cluster(cluster) if cluster else None, load(job) if job else None
    if address.startswith("http"):
        return check_there(spec, judged, address, on_line=(progress or Progress()).note)
    with _session(load({"scale": {"address": address}})):
        return check(spec, judged)


def schema() -> dict[str, Any]:
    """JSON schema of the job file, for editors."""
    return Job.model_json_schema()
