"""Looks at a running cluster, and whether a job fits there, before money is spent.

It does not know what is right or wrong there.
"""

from cluster.facts import judge
from cluster.jobs import Line, send
from cluster.probe import gather
from cluster.spec import Cluster
from llmray.job.errors import ClusterError
from llmray.job.load import as_yaml, dump
from llmray.job.results import CheckResult
from llmray.job.schema import Job


def check(spec: Cluster | None, job: Job | None) -> CheckResult:
    """Check the cluster of the session that runs."""
    storage = (spec.storage if spec else None) or (job.output if job else None)
    worker_gib = _worker_gib(job) if job and job.model and job.task else None
    nodes = gather(storage)
    return CheckResult(
        findings=tuple(judge(nodes, job, worker_gib)),
        nodes=len(nodes),
        gpus=sum(len(node.gpus) for node in nodes),
        worker_gib=worker_gib,
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


def _worker_gib(job: Job) -> float:
    from cluster.memory import shape, worker_gib

    return worker_gib(job, shape(job))
