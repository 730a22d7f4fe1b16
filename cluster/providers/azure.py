"""What a cluster's machines are on Azure.  It does not talk to Azure.

Ray's launcher makes network, identity and rules there itself: `docs/clusters.md` says how to close them further.
"""

from collections.abc import Mapping
from typing import Any

from cluster.spec import Cluster, Nodes, Workers


def provider(spec: Cluster) -> dict[str, Any]:
    """The launcher's section on where machines come from; machines that end are removed, not kept."""
    where = {"location": spec.region, "resource_group": spec.resource_group, "subscription_id": spec.subscription}
    return {"type": "azure", **where, "cache_stopped_nodes": False, "tags": {"llmray": spec.name}}


def node(spec: Cluster, nodes: Nodes, owned: Mapping[str, str]) -> dict[str, Any]:
    """One kind of machine."""
    publisher, offer, sku, version = (spec.machine_image or "").split(":")
    image = {"imagePublisher": publisher, "imageOffer": offer, "imageSku": sku, "imageVersion": version}
    spot = isinstance(nodes, Workers) and nodes.spot
    market = {"priority": "Spot", "billingProfile": {"maxPrice": -1}} if spot else {}
    size = {"vmSize": nodes.machine, "osDiskSize": nodes.disk_gb}
    return {
        "resources": {"CPU": nodes.cpus, **({"GPU": nodes.gpus} if nodes.gpus else {})},
        "node_config": {"azure_arm_parameters": {**size, **image, **market}},
    }


def closing(spec: Cluster) -> list[str]:
    """Commands that let only the owner's networks reach the machines' SSH, which Ray's launcher opens to all."""
    group = f"--resource-group {spec.resource_group}"
    sources = " ".join(spec.access.sources)
    find = f"az network nsg list {group} --query \"[?starts_with(name, 'ray-{spec.name}-')].name\" --output tsv"
    return [f"az network nsg rule update {group} --nsg-name $({find}) --name SSH --source-address-prefixes {sources}"]
