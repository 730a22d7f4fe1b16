"""Writes what other tools need to run one verb on a cluster of its own.

It does not run them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cluster.providers import kubernetes, skypilot
from cluster.spec import Cluster
from llmray.job.errors import JobError
from llmray.job.load import dump
from llmray.job.results import FilesResult
from llmray.job.schema import Job

APPLY = "kubectl apply --filename {}"
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
        manifest = _manifest(kubernetes.job(spec, verb, dump(job)), Path(folder, "rayjob.yaml"))
        files, commands = [manifest, *files], [APPLY.format(manifest), *commands]
    return FilesResult(files=tuple(map(str, files)), commands=tuple(commands))


def write_service(spec: Cluster, serving: Mapping[str, Any], env: Mapping[str, str], folder: str) -> FilesResult:
    """A RayService for Kubernetes.  `serving`: a configuration file of Ray Serve, `env`: its nodes' environment."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    manifest = _manifest(kubernetes.service(spec, serving, env), Path(folder, "rayservice.yaml"))
    return FilesResult(files=(str(manifest),), commands=(APPLY.format(manifest),))


def _manifest(objects: list[dict[str, Any]], path: Path) -> Path:
    path.write_text(yaml.safe_dump_all(objects, sort_keys=False), encoding="utf-8")
    return path
