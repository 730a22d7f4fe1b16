"""Writes what other tools need to run one verb on a cluster that comes for it and goes after it.

It does not run them.
"""

from pathlib import Path

import yaml

from cluster.providers import kubernetes, skypilot
from cluster.spec import Cluster
from llmray.job.errors import JobError
from llmray.job.load import dump
from llmray.job.results import FilesResult
from llmray.job.schema import Job

TOKEN = 'export RAY_AUTH_TOKEN="$(openssl rand -hex 32)"'


def write(spec: Cluster, verb: str, job: Job, job_path: str, folder: str) -> FilesResult:
    """A RayJob for Kubernetes, a SkyPilot task for whatever SkyPilot knows.  Raises `JobError` for given hosts."""
    if spec.provider == "hosts":
        raise JobError("cluster files: hosts are there already; `llmray cluster up` starts Ray on them")
    Path(folder).mkdir(parents=True, exist_ok=True)
    task = Path(folder, "skypilot.yaml")
    task.write_text(yaml.safe_dump(skypilot.task(spec, verb, job_path), sort_keys=False), encoding="utf-8")
    files, commands = [task], [f"{TOKEN} && sky jobs launch --secret RAY_AUTH_TOKEN {task}"]
    if spec.provider == "kubernetes":
        manifest = Path(folder, "rayjob.yaml")
        manifest.write_text(
            yaml.safe_dump_all(kubernetes.job(spec, verb, dump(job)), sort_keys=False), encoding="utf-8"
        )
        files, commands = [manifest, *files], [f"kubectl apply --filename {manifest}", *commands]
    return FilesResult(files=tuple(map(str, files)), commands=tuple(commands))
