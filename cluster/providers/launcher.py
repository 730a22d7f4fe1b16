"""A cluster file → what Ray's cluster launcher reads, for each provider that it knows.

It does not know what a cluster owns beside its machines, and starts nothing.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.providers import aws, azure, gcp, tls
from cluster.spec import Cluster

HEAD, WORKER = "head", "worker"
CODE, VENV, INSTALLED = "$HOME/llmray", "$HOME/llmray-venv", "$HOME/.llmray-installed"
EXTRAS = {"aws": "s3", "gcp": "gcs", "azure": "azure"}
NEEDED_BY_THE_HEAD = {
    "aws": ("boto3",),
    "gcp": ("google-api-python-client", "google-auth"),
    "azure": ("azure-cli-core", "azure-identity", "azure-mgmt-compute", "azure-mgmt-network", "azure-mgmt-resource"),
}
SPOKEN = " ".join(f"{name}={value}" for name, value in tls.variables(tls.MOUNTED).items())
VARIABLES = f"export PATH={VENV}/bin:$PATH RAY_AUTH_MODE=token {SPOKEN}"
CERTIFY = tls.certify(tls.MOUNTED)
START = f"{VARIABLES}; ulimit -n 65536; ray start --disable-usage-stats"


def config(spec: Cluster, folder: Path, owned: Mapping[str, str]) -> dict[str, Any]:
    """What `ray up` reads.  `folder` holds key, token, authority and code; `owned` names what the cluster has in the
    cloud.

    Every node asks for the token and speaks TLS, and the dashboard listens on the head's loopback alone.
    """
    key = str((spec.access.key or folder / "key").expanduser())
    authority = {there: str(here) for there, here in tls.authority(folder).items()}
    public = {"ssh_public_key": f"{key}.pub"} if spec.provider == "azure" else {}
    return {
        "cluster_name": spec.name,
        "max_workers": spec.workers.max,
        "idle_timeout_minutes": spec.idle_minutes,
        "auth": {"ssh_user": spec.access.user, "ssh_private_key": key, **public},
        "file_mounts": {"~/.ray/auth_token": str(folder / "token"), "~/llmray": str(folder / "code"), **authority},
        "setup_commands": [_install(spec), f"grep -qs '{VARIABLES}' ~/.profile || echo '{VARIABLES}' >> ~/.profile"],
        "head_setup_commands": [],
        "worker_setup_commands": [],
        "head_start_ray_commands": [
            f"{VENV}/bin/ray stop",
            CERTIFY,
            f"{START} --head --port=6379 --dashboard-host=127.0.0.1 --autoscaling-config=~/ray_bootstrap_config.yaml",
            *([_rest(spec.head_idle_minutes)] if not spec.hosts else ()),
        ],
        "worker_start_ray_commands": [f"{VENV}/bin/ray stop", CERTIFY, f"{START} --address=$RAY_HEAD_IP:6379"],
        **_provided(spec, owned),
    }


def _rest(minutes: int) -> str:
    """Watches from now on, in the place of one that did so before."""
    watch = f"setsid nohup {VENV}/bin/python -m cluster.rest {minutes} >> ~/.llmray-rest.log 2>&1 < /dev/null &"
    return f"rm -f ~/.llmray-rest.pid; {VARIABLES}; {watch if minutes else ''} true"


def _install(spec: Cluster) -> str:
    """Once for each set of pins: a machine image that has them already starts in seconds."""
    extra = f"[{EXTRAS[spec.provider]}]" if spec.provider in EXTRAS else ""
    more = " ".join(NEEDED_BY_THE_HEAD.get(spec.provider, ()))
    pip = f"{VENV}/bin/pip install --quiet --constraint {CODE}/constraints.txt"
    return (
        f'cmp -s {CODE}/constraints.txt {INSTALLED} || {{ python3 -m venv {VENV} && {pip} "{CODE}{extra}" {more} &&'
        f" cp {CODE}/constraints.txt {INSTALLED}; }}"
    )


def _provided(spec: Cluster, owned: Mapping[str, str]) -> dict[str, Any]:
    if spec.hosts:
        addresses = {"head_ip": spec.hosts.head, "worker_ips": list(spec.hosts.workers)}
        count = len(spec.hosts.workers)
        return {"provider": {"type": "local", **addresses}, "min_workers": count, "max_workers": count}
    cloud = {"aws": aws, "gcp": gcp, "azure": azure}[spec.provider]
    workers = {"min_workers": spec.workers.min, "max_workers": spec.workers.max}
    return {
        "provider": cloud.provider(spec),
        "head_node_type": HEAD,
        "available_node_types": {
            HEAD: {**cloud.node(spec, spec.head, owned), "min_workers": 0, "max_workers": 0},
            WORKER: {**cloud.node(spec, spec.workers, owned), **workers},
        },
    }
