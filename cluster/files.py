"""Writes what other tools need to run one verb on a cluster of its own.

It does not run them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cluster.providers import kubernetes, skypilot, tls
from cluster.spec import Cluster
from llmray.job.errors import JobError
from llmray.job.load import dump
from llmray.job.results import FilesResult
from llmray.job.schema import Job

TOKEN = 'export RAY_AUTH_TOKEN="$(openssl rand -hex 32)"'


AUTHORITY = """#!/bin/sh
# Makes the Secret that signs the pods' certificates, unless it is there.
set -e
{seen} > /dev/null 2>&1 && exit
cd "$(mktemp -d)"
trap 'rm -f ca.key' EXIT
{made}
{create}
"""


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
        authority = _authority(spec, Path(folder, "authority.sh"))
        files, commands = [authority, manifest, *files], [f"sh {authority}", _apply(spec, manifest), *commands]
    return FilesResult(files=tuple(map(str, files)), commands=tuple(commands))


def write_service(spec: Cluster, serving: Mapping[str, Any], env: Mapping[str, str], folder: str) -> FilesResult:
    """A RayService for Kubernetes.  `serving`: a configuration file of Ray Serve, `env`: its nodes' environment."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    manifest = _manifest(kubernetes.service(spec, serving, env), Path(folder, "rayservice.yaml"))
    authority = _authority(spec, Path(folder, "authority.sh"))
    return FilesResult(files=(str(authority), str(manifest)), commands=(f"sh {authority}", _apply(spec, manifest)))


def _authority(spec: Cluster, path: Path) -> Path:
    """A script that makes what signs the pods' certificates; its key is in no file that stays."""
    kubectl, name = " ".join(kubernetes.kubectl(spec)), kubernetes.secret_name(spec)
    path.write_text(
        AUTHORITY.format(
            seen=f"{kubectl} get secret {name}",
            made=" ".join(tls.new_authority(spec.name, *tls.AUTHORITY)),
            create=f"{kubectl} create secret generic {name} {' '.join(f'--from-file={it}' for it in tls.AUTHORITY)}",
        ),
        encoding="utf-8",
    )
    return path


def _apply(spec: Cluster, manifest: Path) -> str:
    return " ".join([*kubernetes.kubectl(spec), "apply", "--filename", str(manifest)])


def _manifest(objects: list[dict[str, Any]], path: Path) -> Path:
    path.write_text(yaml.safe_dump_all(objects, sort_keys=False), encoding="utf-8")
    return path
