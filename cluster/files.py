"""Writes what other tools need to run one verb on a cluster of its own.

It does not run them.
"""

import shlex
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
    launch = f"{TOKEN} && sky jobs launch --secret RAY_AUTH_TOKEN {shlex.quote(str(task))}"
    if spec.provider != "kubernetes":
        return FilesResult(files=(str(task),), commands=(launch,))
    applied = _applied(spec, kubernetes.job(spec, verb, dump(job)), Path(folder, "rayjob.yaml"))
    return FilesResult(files=(*applied.files, str(task)), commands=(*applied.commands, launch))


def write_service(spec: Cluster, serving: Mapping[str, Any], env: Mapping[str, str], folder: str) -> FilesResult:
    """A RayService for Kubernetes.  `serving`: a configuration file of Ray Serve, `env`: its nodes' environment."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    return _applied(spec, kubernetes.service(spec, serving, env), Path(folder, "rayservice.yaml"))


def _applied(spec: Cluster, objects: list[dict[str, Any]], manifest: Path) -> FilesResult:
    """What Kubernetes is given, and beside it a script that makes what signs the pods' certificates: its key is in no
    file that stays."""
    manifest.write_text(yaml.safe_dump_all(objects, sort_keys=False), encoding="utf-8")
    kubectl, name = kubernetes.kubectl(spec), kubernetes.secret_name(spec)
    given = [f"--from-file={file}" for file in tls.AUTHORITY]
    authority = manifest.with_name("authority.sh")
    authority.write_text(
        AUTHORITY.format(
            seen=shlex.join([*kubectl, "get", "secret", name]),
            made=shlex.join(tls.new_authority(spec.name, *tls.AUTHORITY)),
            create=shlex.join([*kubectl, "create", "secret", "generic", name, *given]),
        ),
        encoding="utf-8",
    )
    commands = shlex.join(["sh", str(authority)]), shlex.join([*kubectl, "apply", "--filename", str(manifest)])
    return FilesResult(files=(str(authority), str(manifest)), commands=commands)
