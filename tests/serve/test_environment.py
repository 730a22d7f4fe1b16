"""What is judged before anything starts: routes and ports."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmray.job.errors import ClusterError, JobError
from llmray.job.schema import Endpoint, Serve
from serve import environment, keys
from serve.environment import free_block, is_free, prepare_environment

OUTPUT = "runs/none"


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


@pytest.mark.parametrize(("host", "machines"), [("0.0.0.0", 3), ("::", 2), ("127.0.0.1", 1), ("10.0.0.7", 1)])
def test_an_address_that_every_machine_of_the_cluster_has(host: str, machines: int) -> None:
    environment.judge_machines(host, machines)


@pytest.mark.parametrize("host", ["127.0.0.1", "10.0.0.7"])
def test_an_address_of_one_machine_is_refused_on_several(host: str) -> None:
    with pytest.raises(JobError, match=f"{host} is an address of one machine, and the cluster has 2"):
        environment.judge_machines(host, 2)


def test_a_free_port_is_kept() -> None:
    port = free_block()[0]
    assert prepare_environment(Serve(port=port), OUTPUT).port == port


def test_a_taken_port_is_named_with_the_way_out(taken: int) -> None:
    with pytest.raises(ClusterError, match=rf"{taken} on 127.0.0.1 is taken .*serve.port=….*serve.if_port_taken=next"):
        prepare_environment(Serve(port=taken), OUTPUT)


def test_the_next_free_port_is_taken_when_the_user_chose_so(taken: int) -> None:
    found = prepare_environment(Serve(port=taken, if_port_taken="next"), OUTPUT).port
    assert taken < found <= taken + 100
    assert is_free("127.0.0.1", found)


def test_the_port_of_a_cluster_elsewhere_is_not_judged_here(taken: int) -> None:
    assert prepare_environment(Serve(port=taken), OUTPUT, joins=True).port == taken


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(ClusterError, match=r"serve.host: cannot listen on '192.0.2.77'"):
        is_free("192.0.2.77", free_block()[0])


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "gpu-1.example.org"])
def test_an_address_that_others_reach_needs_keys(host: str, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="there is no API key: make one with `llmray keys create"):
        prepare_environment(Serve(host=host), str(tmp_path), joins=True)
    keys.create(str(tmp_path / "keys.json"), "ana")
    assert prepare_environment(Serve(host=host), str(tmp_path), joins=True).keys == f"{tmp_path}/keys.json"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_loopback_needs_no_keys(host: str, tmp_path: Path) -> None:
    assert prepare_environment(Serve(host=host), str(tmp_path), joins=True).keys is None


def test_keys_that_are_named_must_exist(tmp_path: Path) -> None:
    with pytest.raises(
        JobError, match=r"serve.keys: .*/mine.json does not exist; make a first key: llmray keys create"
    ):
        prepare_environment(Serve(keys=str(tmp_path / "mine.json")), OUTPUT)


@pytest.mark.parametrize("names", [(None, None), ("one", None), ("one", "one")])
def test_two_endpoints_on_one_route_are_refused(names: tuple[str | None, str | None]) -> None:
    ends = tuple(Endpoint(model=m, task={"name": "qa"}, name=n) for m, n in zip("ab", names, strict=True))
    with pytest.raises(JobError, match=r"a, b all answer /qa; keep one of them, or give each a name .* \(/qa/NAME\)"):
        prepare_environment(Serve(port=free_block()[0], endpoints=ends), OUTPUT)


def test_endpoints_with_names_share_a_task() -> None:
    ends = tuple(Endpoint(model="m", task={"name": "qa"}, name=name) for name in ("one", "two"))
    assert prepare_environment(Serve(port=free_block()[0], endpoints=ends), OUTPUT).endpoints == ends
    with pytest.raises(JobError, match="docs is a page of every route"):
        prepare_environment(Serve(endpoints=(ends[0].model_copy(update={"name": "docs"}),)), OUTPUT)


def test_a_model_that_is_only_pretrained_has_no_route() -> None:
    end = Endpoint(model="runs/t5", task={"name": "span_corruption"})
    with pytest.raises(JobError, match=r"runs/t5 learned span_corruption, .* one of qa, translation"):
        prepare_environment(Serve(port=free_block()[0], endpoints=(end,)), OUTPUT)


def test_a_block_of_ports_is_below_the_system_s_own_and_apart_from_the_public_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(environment, "BLOCKS", range(20_000, 20_200, 100))
    assert {free_block(20_150) for _ in range(20)} == {(20_000, 20_099)}
    monkeypatch.undo()
    first, last = free_block()
    assert last - first == 99
    assert 20_000 <= first < last < 32_000
