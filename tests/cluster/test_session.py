"""Joining a Ray cluster: one that cannot be reached is named at once, not after minutes."""

import socket

import pytest
import ray
from ray.util.state import list_nodes

from cluster.session import session
from llmray.job.errors import ClusterError
from llmray.job.schema import Scale


@pytest.mark.timeout(30)
@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}"])
def test_an_address_where_nothing_listens_is_refused(form: str) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        address = form.format(bound.getsockname()[1])
        with pytest.raises(ClusterError, match=f"{address}: nothing answers there"), session(Scale(address=address)):
            pass


@pytest.mark.timeout(60)
def test_a_host_that_does_not_exist_is_refused() -> None:
    address = "no-such-host.invalid:6379"
    with pytest.raises(ClusterError, match=f"{address}: nothing answers there"), session(Scale(address=address)):
        pass


def test_workers_ask_the_ray_that_they_are_in_for_its_state(ray_cluster: None) -> None:
    """Not whatever `ray start` was last used for on this machine: Ray Train would wait for it."""

    @ray.remote(num_cpus=0.1)
    def nodes() -> set[str]:
        return {node.node_id for node in list_nodes(timeout=10)}

    assert ray.get(nodes.remote()) == {node["NodeID"] for node in ray.nodes()}
