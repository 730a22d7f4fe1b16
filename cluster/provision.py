"""Brings a cluster up and down and looks at it, through `ray up`, `ray down` and `kubectl`.

It does not know what runs there.  What a cluster needs on this machine (its SSH key, token, and the file that the tool
reads) is kept in a folder that only its owner may read.
"""

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from cluster.jobs import PACKAGES, ROOT, copied
from cluster.providers import azure, gcp, kubernetes, launcher, tls
from cluster.spec import Cluster
from llmray.job.errors import ClusterError
from llmray.job.results import ClusterGone, ClusterResult

HOME = Path("~/.llmray/clusters")
PROJECT = ("pyproject.toml", "constraints.txt", "README.md", "LICENSE")
RAY = (sys.executable, "-m", "ray.scripts.scripts")
DASHBOARD = "http://127.0.0.1:8265"
CLOSING = {"gcp": gcp.closing, "azure": azure.closing}
SEE = {
    "gcp": "gcloud compute instances list --project={0.project} --filter=labels.llmray={0.name}",
    "azure": "az resource list --resource-group {0.resource_group} --subscription {0.subscription} --output table",
}


def up(spec: Cluster, home: Path = HOME) -> ClusterResult:
    """Bring it up, or bring one that is up in line with the file.  Raises `ClusterError`."""
    folder = _folder(spec, home)
    if spec.provider == "kubernetes":
        _kubectl(spec, ["apply", "--filename", "-"], _manifests(spec, folder))
    else:
        _ray(["up", "--yes", "--no-config-cache", str(_launcher_file(spec, folder))])
    return status(spec, home)


def down(spec: Cluster, home: Path = HOME) -> ClusterGone:
    """Take it down with all that it owns, and say what is left."""
    folder = _folder(spec, home)
    left = _kubernetes_down(spec, folder) if spec.provider == "kubernetes" else _machines_down(spec, folder)
    if not left:
        shutil.rmtree(folder)
    see = SEE.get(spec.provider)
    return ClusterGone(name=spec.name, left=tuple(left), notes=(see.format(spec),) if see else ())


def _manifests(spec: Cluster, folder: Path) -> str:
    authority = {path.name: path.read_text(encoding="utf-8") for path in tls.authority(folder).values()}
    return str(yaml.safe_dump_all([kubernetes.authority(spec, authority), *kubernetes.cluster(spec)]))


def _kubernetes_down(spec: Cluster, folder: Path) -> list[str]:
    _kubectl(spec, ["delete", "--ignore-not-found", "--wait", "--filename", "-"], _manifests(spec, folder))
    return [f"pod {pod['metadata']['name']}" for pod in _pods(spec)]


def _machines_down(spec: Cluster, folder: Path) -> list[str]:
    _ray(["down", "--yes", str(_launcher_file(spec, folder))])
    if spec.provider != "aws":
        return []
    _account().remove(spec)
    return list(_account().left(spec))


def status(spec: Cluster, home: Path = HOME) -> ClusterResult:
    """What runs of it, and how to reach it."""
    folder = home.expanduser() / spec.name
    head, workers = _nodes(spec, folder)
    return ClusterResult(
        name=spec.name,
        provider=spec.provider,
        address=DASHBOARD if head else "",
        tunnel=_tunnel(spec, folder, head) if head else "",
        token=_token(spec, folder) if head else "",
        nodes=bool(head) + workers,
        gpus=bool(head) * spec.head.gpus + workers * spec.workers.gpus,
        per_hour=_per_hour(spec, bool(head), workers),
        notes=tuple(CLOSING[spec.provider](spec)) if head and spec.provider in CLOSING else (),
    )


def _per_hour(spec: Cluster, heads: int, workers: int) -> float | None:
    if spec.head.price is None or spec.workers.price is None:
        return None
    return heads * spec.head.price + workers * spec.workers.price


def _nodes(spec: Cluster, folder: Path) -> tuple[str, int]:
    """The head's address (or pod), and how many workers run."""
    if spec.provider == "kubernetes":
        kinds = [pod["metadata"]["labels"].get("ray.io/node-type") for pod in _pods(spec)]
        return (spec.name if "head" in kinds else ""), kinds.count("worker")
    file = str(folder / "launcher.yaml")
    if not Path(file).exists():
        return "", 0
    head = _asked(["get-head-ip", file])
    return head[-1] if head else "", len(_asked(["get-worker-ips", file])) if head else 0


def _asked(words: Sequence[str]) -> list[str]:
    """Addresses among what Ray says, one a line."""
    done = subprocess.run([*RAY, *words], capture_output=True, text=True, check=False)
    return [line for line in done.stdout.splitlines() if done.returncode == 0 and line and " " not in line]


def _tunnel(spec: Cluster, folder: Path, head: str) -> str:
    if spec.provider == "kubernetes":
        return " ".join([*kubernetes.kubectl(spec), "port-forward", f"service/{spec.name}-head-svc", "8265:8265"])
    key = spec.access.key or folder / "key"
    return f"ssh -i {key} -N -L 8265:127.0.0.1:8265 {spec.access.user}@{head}"


def _token(spec: Cluster, folder: Path) -> str:
    if spec.provider == "kubernetes":
        get = " ".join(
            [*kubernetes.kubectl(spec), "get", "secret", spec.name, "--output", "jsonpath={.data.auth_token}"]
        )
        return f"RAY_AUTH_MODE=token RAY_AUTH_TOKEN=$({get} | base64 --decode)"
    return f"RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH={folder / 'token'}"


def _folder(spec: Cluster, home: Path) -> Path:
    """The cluster's folder here, with a token, an authority and, unless the file names one, a key of its own."""
    if missing := [tool for tool in ("ssh-keygen", "openssl") if not shutil.which(tool)]:
        raise ClusterError(f"clusters need {' and '.join(missing)} on this machine (Debian: openssh-client, openssl)")
    folder = home.expanduser() / spec.name
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not (folder / "token").exists():
        _write_private(folder / "token", secrets.token_hex(32))
    tls.make_authority(folder, spec.name)
    if not (spec.access.key or (folder / "key").exists()):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"llmray-{spec.name}", "-f", str(folder / "key")],
            check=True,
        )
    return folder


def _write_private(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)


def _launcher_file(spec: Cluster, folder: Path) -> Path:
    """What the launcher reads, and the code that nodes install: packages and pins, nothing else."""
    _require_checkout()
    shutil.rmtree(folder / "code", ignore_errors=True)
    copied(PACKAGES, folder / "code")
    for name in PROJECT:
        shutil.copy(ROOT / name, folder / "code" / name)
    public = Path(f"{(spec.access.key or folder / 'key').expanduser()}.pub")
    text = public.read_text(encoding="utf-8").strip() if public.exists() else ""
    owned = _account().make(spec, text) if spec.provider == "aws" else {"public_key": text}
    path = folder / "launcher.yaml"
    path.write_text(yaml.safe_dump(launcher.config(spec, folder, owned), sort_keys=False), encoding="utf-8")
    return path


def _require_checkout() -> None:
    if missing := [name for name in PROJECT if not (ROOT / name).exists()]:
        raise ClusterError(
            f"nodes install llmray from a checkout, and {ROOT} has no {', '.join(missing)}: clone the project, and"
            " install it with `pip install --editable .`"
        )


def _account() -> Any:
    """AWS's side, for which boto3 must be here."""
    try:
        return import_module("cluster.providers.aws_owned")
    except ImportError as error:
        raise ClusterError(f"{error}: clusters on AWS need `pip install 'llmray[aws]'`") from error


def _ray(words: Sequence[str]) -> None:
    """Ray's own words go to standard error, as they come."""
    done = subprocess.run([*RAY, *words], stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False)
    if done.returncode:
        raise ClusterError(f"`ray {words[0]}` ended with exit code {done.returncode}; what it said is above")


def _pods(spec: Cluster) -> list[dict[str, Any]]:
    answer = _kubectl(spec, ["get", "pods", "--selector", f"llmray={spec.name}", "--output", "json"])
    return list(json.loads(answer)["items"])


def _kubectl(spec: Cluster, words: Sequence[str], text: str | None = None) -> str:
    if shutil.which("kubectl") is None:
        raise ClusterError(
            "clusters on Kubernetes need `kubectl` on this machine: https://kubernetes.io/docs/tasks/tools"
        )
    done = subprocess.run([*kubernetes.kubectl(spec), *words], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"kubectl {words[0]}: {done.stderr.strip()}")
    return done.stdout
