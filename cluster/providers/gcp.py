"""What a cluster's machines are on GCP.  It does not talk to GCP.

Ray's launcher makes service account and firewall rules there itself: `docs/clusters.md` says how to close them further.
"""

from collections.abc import Mapping
from typing import Any

from cluster.spec import Cluster, Nodes, Workers


def provider(spec: Cluster) -> dict[str, Any]:
    """The launcher's section on where machines come from; machines that end are removed, not kept."""
    where = {"region": spec.region, "availability_zone": spec.zone, "project_id": spec.project}
    return {"type": "gcp", **where, "cache_stopped_nodes": False}


def node(spec: Cluster, nodes: Nodes, owned: Mapping[str, str]) -> dict[str, Any]:
    """One kind of machine; its disk goes with it."""
    image = {"diskSizeGb": nodes.disk_gb, "sourceImage": spec.machine_image}
    disk = {"boot": True, "autoDelete": True, "type": "PERSISTENT", "initializeParams": image}
    spot = isinstance(nodes, Workers) and nodes.spot
    scheduling = {"provisioningModel": "SPOT", "instanceTerminationAction": "DELETE"} if spot else {}
    if nodes.gpus:
        scheduling |= {"onHostMaintenance": "TERMINATE"}
    return {
        "resources": {"CPU": nodes.cpus, **({"GPU": nodes.gpus} if nodes.gpus else {})},
        "node_config": {
            "machineType": nodes.machine,
            "disks": [disk],
            "labels": {"llmray": spec.name},
            "metadata": {"items": [{"key": "ssh-keys", "value": f"{spec.access.user}:{owned['public_key']}"}]},
            "tags": {"items": [f"llmray-{spec.name}"]},
            **({"scheduling": scheduling} if scheduling else {}),
        },
    }


def closing(spec: Cluster) -> list[str]:
    """Commands that let only the owner's networks reach the machines' SSH, before GCP's default rule does."""
    rule = f"gcloud compute firewall-rules create llmray-{spec.name}"
    target = f"--project={spec.project} --target-tags=llmray-{spec.name} --direction=INGRESS"
    sources = ",".join(spec.access.sources)
    return [
        f"{rule}-ssh --action=ALLOW --rules=tcp:22 --source-ranges={sources} --priority=800 {target}",
        f"{rule}-inside --action=ALLOW --rules=all --source-tags=llmray-{spec.name} --priority=800 {target}",
        f"{rule}-closed --action=DENY --rules=all --source-ranges=0.0.0.0/0 --priority=900 {target}",
    ]
