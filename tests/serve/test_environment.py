"""What is judged before anything starts: routes and ports."""

import socket
from collections.abc import Iterator

import pytest

from llmray.job.errors import ClusterError, JobError
from llmray.job.schema import Endpoint, Serve
from serve.environment import free_block, free_port, is_free, prepare_environment


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def test_a_free_port_is_kept() -> None:
    port = free_port()
    assert prepare_environment(Serve(port=port)).port == port


def test_a_taken_port_is_named_with_the_way_out(taken: int) -> None:
    with pytest.raises(ClusterError, match=rf"{taken} on 127.0.0.1 is taken .*serve.port=….*serve.if_port_taken=next"):
        prepare_environment(Serve(port=taken))


def test_the_next_free_port_is_taken_when_the_user_chose_so(taken: int) -> None:
    found = prepare_environment(Serve(port=taken, if_port_taken="next")).port
    assert taken < found <= taken + 100
    assert is_free("127.0.0.1", found)


def test_the_port_of_a_cluster_elsewhere_is_not_judged_here(taken: int) -> None:
    assert prepare_environment(Serve(port=taken), joins=True).port == taken


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(ClusterError, match=r"serve.host: cannot listen on '192.0.2.77'"):
        prepare_environment(Serve(host="192.0.2.77", port=free_port()))


def test_two_endpoints_on_one_route_are_refused() -> None:
    ends = (Endpoint(model="a", task={"name": "qa"}), Endpoint(model="b", task={"name": "qa"}))
    with pytest.raises(JobError, match="a, b all answer /qa"):
        prepare_environment(Serve(port=free_port(), endpoints=ends))


def test_a_model_that_is_only_pretrained_has_no_route() -> None:
    end = Endpoint(model="runs/t5", task={"name": "span_corruption"})
    with pytest.raises(JobError, match=r"runs/t5 learned span_corruption, .* one of qa, translation"):
        prepare_environment(Serve(port=free_port(), endpoints=(end,)))


def test_a_block_of_ports_is_free_and_below_the_system_s_own() -> None:
    first, last = free_block()
    assert last - first == 99
    assert 20_000 <= first < last < 32_000
