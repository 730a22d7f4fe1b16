"""Makes and removes what a cluster owns in an AWS account beside its machines: key, security group, roles.

It does not start machines.  Ray's launcher would make a group that lets the world reach SSH, and a role that may do
anything with EC2 and S3.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from cluster.providers.aws import ROLES, TAG, TRUST, ingress, owned_name, policy
from cluster.spec import Cluster
from llmray.job.errors import ClusterError

GONE = ("InvalidGroup.NotFound", "NoSuchEntity", "InvalidKeyPair.NotFound")
THERE = ("InvalidGroup.Duplicate", "EntityAlreadyExists", "InvalidKeyPair.Duplicate")
FREED_WITHIN_S, POLL_S = 180, 3
"""A group can be deleted once the last machine in it has ended."""


def make(spec: Cluster, public_key: str) -> dict[str, str]:
    """Make what is missing; what is there already stays.  Ids that the launcher needs."""
    with _in_words(spec):
        _unless(THERE, lambda: _ec2(spec).import_key_pair(
            KeyName=owned_name(spec), PublicKeyMaterial=public_key.encode(), TagSpecifications=_tags(spec, "key-pair")
        ))  # fmt: skip
        account = boto3.client("sts", spec.region).get_caller_identity()["Account"]
        for role in ROLES:
            _make_role(spec, role, account)
        return {"security_group": _make_group(spec), "public_key": public_key}


def remove(spec: Cluster) -> None:
    """Remove all of it, once the machines are gone; what is gone already is no error."""
    with _in_words(spec):
        for group in _groups(spec):
            _once_free(partial(_ec2(spec).delete_security_group, GroupId=group))
        for role in ROLES:
            _remove_role(spec, owned_name(spec, role))
        _unless(GONE, lambda: _ec2(spec).delete_key_pair(KeyName=owned_name(spec)))


def left(spec: Cluster) -> list[str]:
    """Everything of the cluster that the account still has, machines and disks included."""
    with _in_words(spec):
        ec2, mine = _ec2(spec), [{"Name": f"tag:{TAG}", "Values": [spec.name]}]
        found = [f"instance {one['InstanceId']}" for one in machines(spec)]
        found += [f"volume {one['VolumeId']}" for one in ec2.describe_volumes(Filters=mine)["Volumes"]]
        found += [f"security group {group}" for group in _groups(spec)]
        found += [f"key pair {one['KeyName']}" for one in ec2.describe_key_pairs(Filters=mine)["KeyPairs"]]
        return found + [f"role {owned_name(spec, role)}" for role in ROLES if _has_role(spec, owned_name(spec, role))]


def machines(spec: Cluster) -> list[dict[str, Any]]:
    """The cluster's machines that run, or will."""
    mine = {"Name": f"tag:{TAG}", "Values": [spec.name]}
    alive = {"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]}
    pages = _ec2(spec).get_paginator("describe_instances").paginate(Filters=[mine, alive])
    return [one for page in pages for group in page["Reservations"] for one in group["Instances"]]


def _make_group(spec: Cluster) -> str:
    ec2 = _ec2(spec)
    if found := _groups(spec):
        return found[0]
    group = str(
        ec2.create_security_group(
            GroupName=owned_name(spec),
            Description=f"llmray cluster {spec.name}: closed but SSH",
            TagSpecifications=_tags(spec, "security-group"),
        )["GroupId"]
    )
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=ingress(spec, group))
    return group


def _groups(spec: Cluster) -> list[str]:
    mine = [{"Name": f"tag:{TAG}", "Values": [spec.name]}]
    return [str(one["GroupId"]) for one in _ec2(spec).describe_security_groups(Filters=mine)["SecurityGroups"]]


def _make_role(spec: Cluster, role: str, account: str) -> None:
    iam, name = _iam(spec), owned_name(spec, role)
    tags = [{"Key": TAG, "Value": spec.name}]
    _unless(THERE, lambda: iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(TRUST), Tags=tags))
    document = json.dumps(policy(spec, role, account))
    iam.put_role_policy(RoleName=name, PolicyName="llmray", PolicyDocument=document)
    if _unless(THERE, lambda: iam.create_instance_profile(InstanceProfileName=name, Tags=tags)):
        iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)


def _remove_role(spec: Cluster, name: str) -> None:
    iam = _iam(spec)
    _unless(GONE, lambda: iam.remove_role_from_instance_profile(InstanceProfileName=name, RoleName=name))
    _unless(GONE, lambda: iam.delete_instance_profile(InstanceProfileName=name))
    _unless(GONE, lambda: iam.delete_role_policy(RoleName=name, PolicyName="llmray"))
    _unless(GONE, lambda: iam.delete_role(RoleName=name))


def _has_role(spec: Cluster, name: str) -> bool:
    return _unless(GONE, lambda: _iam(spec).get_role(RoleName=name)) is not None


def _unless(codes: tuple[str, ...], ask: Callable[[], Any]) -> Any:
    """The answer, or nothing where AWS refuses with one of these codes."""
    try:
        return ask()
    except ClientError as error:
        if error.response["Error"]["Code"] not in codes:
            raise
        return None


def _once_free(delete: Callable[[], Any]) -> None:
    until = time.monotonic() + FREED_WITHIN_S
    while True:
        try:
            _unless(GONE, delete)
        except ClientError as error:
            if error.response["Error"]["Code"] != "DependencyViolation" or time.monotonic() > until:
                raise
            time.sleep(POLL_S)
        else:
            return


def _tags(spec: Cluster, kind: str) -> list[dict[str, Any]]:
    return [{"ResourceType": kind, "Tags": [{"Key": TAG, "Value": spec.name}]}]


def _ec2(spec: Cluster) -> Any:
    return boto3.client("ec2", spec.region)


def _iam(spec: Cluster) -> Any:
    return boto3.client("iam", spec.region)


@contextmanager
def _in_words(spec: Cluster) -> Iterator[None]:
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        raise ClusterError(f"cluster {spec.name}: AWS, {spec.region}: {error}") from error
