"""What a cluster is on AWS: its machines, and the rules of the group and of the roles that it owns there.

It does not talk to AWS.
"""

from collections.abc import Mapping
from typing import Any

from cluster.spec import Cluster, Nodes, Workers

TAG = "ray-cluster-name"
"""Ray's launcher marks what it starts with this; what the cluster owns besides has the same mark."""
ROLES = ("head", "worker")


def owned_name(spec: Cluster, part: str = "") -> str:
    """Name of what the cluster owns in the account beside its machines."""
    return "-".join(filter(None, ("llmray", spec.name, part)))


def provider(spec: Cluster) -> dict[str, Any]:
    """The launcher's section on where machines come from; machines that end are removed, not kept."""
    zone = {"availability_zone": spec.zone} if spec.zone else {}
    return {"type": "aws", "region": spec.region, "cache_stopped_nodes": False, **zone}


def node(spec: Cluster, nodes: Nodes, owned: Mapping[str, str]) -> dict[str, Any]:
    """One kind of machine.  Its disk is encrypted and goes with it; its credentials are given only to programs on it,
    not to requests that one of them was made to forward."""
    worker = isinstance(nodes, Workers)
    spot = isinstance(nodes, Workers) and nodes.spot
    disk = {"VolumeSize": nodes.disk_gb, "VolumeType": "gp3", "Encrypted": True, "DeleteOnTermination": True}
    return {
        "resources": {},  # the launcher asks AWS what this kind of machine has
        "node_config": {
            "InstanceType": nodes.machine,
            "ImageId": spec.machine_image,
            "KeyName": owned_name(spec),
            "SecurityGroupIds": [owned["security_group"]],
            "IamInstanceProfile": {"Name": owned_name(spec, "worker" if worker else "head")},
            "BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": disk}],
            "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 1},
            "InstanceInitiatedShutdownBehavior": "terminate",
            "TagSpecifications": [{"ResourceType": "volume", "Tags": [{"Key": TAG, "Value": spec.name}]}],
            **({"InstanceMarketOptions": {"MarketType": "spot"}} if spot else {}),
        },
    }


def ingress(spec: Cluster, group: str) -> list[dict[str, Any]]:
    """Rules of the security group: all among the cluster's machines, SSH from the owner's networks, nothing else."""
    ssh: dict[str, Any] = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22}
    four = [{"CidrIp": source} for source in spec.access.sources if ":" not in source]
    six = [{"CidrIpv6": source} for source in spec.access.sources if ":" in source]
    ssh |= ({"IpRanges": four} if four else {}) | ({"Ipv6Ranges": six} if six else {})
    return [{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}, ssh]


TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"},
    ],
}


def policy(spec: Cluster, role: str, account: str) -> dict[str, Any]:
    """What a role may do: the head starts and ends this cluster's machines; all read and write its bucket."""
    statements = _bucket(spec) + (_machines(spec, account) if role == "head" else [])
    return {"Version": "2012-10-17", "Statement": statements}


def _bucket(spec: Cluster) -> list[dict[str, Any]]:
    if not (spec.storage and spec.storage.startswith("s3://")):
        return []
    bucket, _, prefix = spec.storage.removeprefix("s3://").strip("/").partition("/")
    below = f"{prefix}/*" if prefix else "*"
    arn = f"arn:aws:s3:::{bucket}"
    objects = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]
    return [
        _allow(["s3:ListBucket"], [arn], {"StringLike": {"s3:prefix": [prefix, below]}} if prefix else None),
        _allow(objects, [f"{arn}/{below}"]),
    ]


def _machines(spec: Cluster, account: str) -> list[dict[str, Any]]:
    where = f"arn:aws:ec2:{spec.region}:{account}"
    parts = ("security-group", "subnet", "network-interface", "volume", "key-pair")
    given = [f"{where}:{part}/*" for part in parts] + [f"arn:aws:ec2:{spec.region}::image/{spec.machine_image}"]
    asked = {"StringEquals": {f"aws:RequestTag/{TAG}": spec.name}}
    ours = {"StringEquals": {f"aws:ResourceTag/{TAG}": spec.name}}
    at_start = {"StringEquals": {"ec2:CreateAction": "RunInstances"}}
    machine = [f"{where}:instance/*"]
    return [
        _allow(["ec2:Describe*"], ["*"]),
        _allow(["ec2:RunInstances"], given),
        _allow(["ec2:RunInstances"], machine, asked),
        _allow(["ec2:CreateTags"], [*machine, f"{where}:volume/*"], at_start),
        _allow(["ec2:CreateTags", "ec2:TerminateInstances"], machine, ours),
        _allow(["iam:PassRole"], [f"arn:aws:iam::{account}:role/{owned_name(spec, 'worker')}"]),
    ]


def _allow(actions: list[str], resources: list[str], condition: dict[str, Any] | None = None) -> dict[str, Any]:
    statement: dict[str, Any] = {"Effect": "Allow", "Action": actions, "Resource": resources}
    return statement | ({"Condition": condition} if condition else {})
