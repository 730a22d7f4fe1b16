"""The cluster's head, whose HAProxy takes every request: where it is, who can reach it, at which address it listens.

It does not know what is served there.
"""

import socket
from typing import Any

import ray
from ray.experimental import internal_kv

from llmray.job.errors import ClusterError
from serve.environment import is_loopback

LOOPBACK = "127.0.0.1"
HOST = b"llmray:serve.host"
ELSEWHERE = ("192.0.2.1", 9)
"""An address for documentation (RFC 5737): a UDP socket connects to it without sending anything."""


def node() -> dict[str, Any]:
    for each in ray.nodes():
        if "node:__internal_head__" in each["Resources"]:
            return each
    raise ClusterError("the Ray cluster has no live head node")


def is_here() -> bool:
    return bool(node()["NodeID"] == ray.get_runtime_context().get_node_id())


def is_alone() -> bool:
    """Whether no other machine can join this cluster: then nothing but HAProxy needs to be reached from outside."""
    return is_loopback(node()["NodeManagerAddress"])


def address() -> str:
    """How other machines name the head."""
    return outside() if is_alone() else str(node()["NodeManagerAddress"])


def outside() -> str:
    """This machine's address in its network; loopback where it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(ELSEWHERE)
        except OSError:
            return LOOPBACK
        return str(probe.getsockname()[0])


def remember(host: str) -> None:
    """Keep in the cluster where HAProxy listens; Ray Serve itself may know only loopback."""
    internal_kv._internal_kv_put(HOST, host.encode())


def remembered(otherwise: str) -> str:
    found = internal_kv._internal_kv_get(HOST)
    return found.decode() if found else otherwise


def forget() -> None:
    internal_kv._internal_kv_del(HOST)
