"""The port at which one replica asks another, kept to loopback where no other machine has replicas.

It does not know what they ask.  Ray Serve opens it on every interface, asks for no token there, and unpickles what
comes: whoever reached it could run anything.
"""

from typing import Any

import ray
from ray._common.tls_utils import add_port_to_grpc_server
from ray.serve._private import replica

from serve.environment import is_loopback


def keep_to_loopback() -> None:
    """To be called in a replica before Ray Serve opens the port: in its constructor."""
    if is_loopback(ray.util.get_node_ip_address()):
        replica.add_port_to_grpc_server = _on_loopback


def _on_loopback(server: Any, address: str) -> int:
    port: int = add_port_to_grpc_server(server, f"127.0.0.1:{address.rpartition(':')[2]}")
    return port
