"""Looks at a running cluster, and whether a job fits there, before money is spent.

It does not know what is right or wrong there.
"""

from typing import TYPE_CHECKING

from cluster.facts import judge
from cluster.jobs import Line, send
from cluster.probe import gather
from cluster.spec import Cluster
from llmray.job.errors import ClusterError
from llmray.job.load import as_yaml, dump
from llmray.job.results import CheckResult
from llmray.job.schema import Job

if TYPE_CHECKING:  # it brings torch, which who only asks from afar does not need
    from cluster.shape import Shape


def check(spec: Cluster | None, job: Job | None) -> CheckResult:
    """Check the cluster of the session that runs."""
    storage = (spec.storage if spec else None) or (job.output if job else None)
    found = _shape(job)
    nodes = gather(storage)
    gpus = [gpu.name for node in nodes for gpu in node.gpus]
    gpu = next(iter(gpus), spec.workers.gpu if spec else None)
    estimated = _estimated(job, found, spec, gpu) if job and found else {}
    return CheckResult(
        findings=tuple(judge(nodes, job, estimated.get("worker_gib"))), nodes=len(nodes), gpus=len(gpus), **estimated
    )


def check_there(spec: Cluster | None, job: Job | None, address: str, on_line: Line) -> CheckResult:
    """The same, run on the cluster behind a dashboard.  Raises `ClusterError`."""
    files = ({"cluster.yaml": as_yaml(spec)} if spec else {}) | ({"job.yaml": dump(job)} if job else {})
    lines: list[str] = []
    options = (" cluster.yaml" if spec else "") + (" --job job.yaml" if job else "")
    identity, _ = send(f"cluster check{options} --address auto --json", files, address, on_line=lines.append)
    for line in lines:
        if line.startswith('{"findings"'):
            return CheckResult.model_validate_json(line)
        on_line(line)
    raise ClusterError(f"{address}: job {identity} told no findings; what it said is above")


def _shape(job: Job | None) -> "Shape | None":
    """Of the job's model; a wrong one is refused before any node is asked."""
    if job is None or not (job.model and job.task):
        return None
    from cluster.shape import shape

    return shape(job)


def _estimated(job: Job, shape: "Shape", spec: Cluster | None, gpu: str | None) -> dict[str, float | None]:
    """What is known of a training run beforehand."""
    from cluster.memory import worker_gib
    from cluster.price import cost, hours

    long = hours(job, shape, gpu)
    return {
        "worker_gib": worker_gib(job, shape),
        "hours": long,
        "cost": cost(job, spec, long) if spec and long is not None else None,
    }
