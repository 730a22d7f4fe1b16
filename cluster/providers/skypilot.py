"""A cluster file → a SkyPilot task, for its clouds, its prices and its recovery of spot machines.

It does not import SkyPilot, whose pins and ours exclude each other: `pipx install skypilot`.
"""

from typing import Any

from cluster.spec import Cluster

INSTALL = "cd ~/sky_workdir && uv venv --allow-existing ~/llmray-venv --python 3.12 && . ~/llmray-venv/bin/activate"


def task(spec: Cluster, verb: str, job: str) -> dict[str, Any]:
    """What `sky jobs launch --secret RAY_AUTH_TOKEN` reads: as many nodes as the cluster has at most, one Ray over
    them, the verb on the first.

    `job` is the job file's path within the checkout, from which it is to be launched.
    """
    nodes = spec.workers
    kind = f"{nodes.gpu}:{nodes.gpus}" if nodes.gpu else None
    resources = {
        "infra": "/".join(filter(None, (spec.provider, spec.region, spec.zone))),
        "instance_type": nodes.machine if spec.provider in ("aws", "gcp", "azure") else None,
        "accelerators": kind,
        "cpus": None if nodes.machine else f"{nodes.cpus}+",
        "disk_size": nodes.disk_gb,
        "use_spot": nodes.spot,
        "autostop": {"idle_minutes": spec.idle_minutes, "down": True},
    }
    return {
        "name": spec.name,
        "num_nodes": max(1, nodes.max),
        "workdir": ".",
        "resources": {key: value for key, value in resources.items() if value is not None},
        "secrets": {"RAY_AUTH_TOKEN": None},
        "setup": f"{INSTALL} && uv pip install --constraint constraints.txt '.[s3,gcs]'",
        "run": _run(verb, job),
    }


def _run(verb: str, job: str) -> str:
    """Every node joins the Ray of the first, and ends with it."""
    return f"""set -e
. ~/llmray-venv/bin/activate
export RAY_AUTH_MODE=token
HEAD=$(echo "$SKYPILOT_NODE_IPS" | head -n1)
if [ "$SKYPILOT_NODE_RANK" = 0 ]; then
  trap 'ray stop' EXIT
  ray start --head --port=6380 --dashboard-host=127.0.0.1 --dashboard-port=8266 --disable-usage-stats
  python -m llmray {verb} {job} scale.address=$HEAD:6380
else
  until ray start --address=$HEAD:6380 --disable-usage-stats; do sleep 5; done
  while ray status --address=$HEAD:6380 >/dev/null 2>&1; do sleep 15; done
fi
"""
