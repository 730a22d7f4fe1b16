"""Which of a machine's networks is the one between a cluster's machines.  It does not know what is sent over it."""

import os

import psutil
import ray


def speak_over_ray_s() -> None:
    """Let Gloo, which carries gradients between CPUs, use the network that Ray uses; run in every worker process.

    By itself Gloo takes the one that the machine's name leads to: on Debian loopback, where no other machine is found.
    """
    own = ray.util.get_node_ip_address()
    for name, addresses in psutil.net_if_addrs().items():
        if own in [address.address for address in addresses]:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
