"""Joining a Ray cluster: one that cannot be reached is named at once, not after minutes."""

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.util.state import list_nodes

from cluster.forkserver import can_copy
from cluster.session import session
from llmray.job.errors import ClusterError
from llmray.job.training import Scale


@pytest.mark.timeout(30)
@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}"])
def test_an_address_where_nothing_listens_is_refused(form: str) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        address = form.format(bound.getsockname()[1])
        with pytest.raises(ClusterError, match=f"{address}: nothing answers there"), session(Scale(address=address)):
            pass


@pytest.mark.timeout(30)
def test_a_cluster_that_auto_finds_dead_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(ClusterError, match=f"{address}: nothing answers there"), session(Scale(address="auto")):
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


@pytest.mark.skipif(not can_copy(), reason="copies are made on Linux, where there is no GPU")
@pytest.mark.parametrize(
    ("environment", "options"),
    [
        ({}, []),
        pytest.param({"env_vars": {"A": "1"}}, [], marks=pytest.mark.slow),
        pytest.param({"env_vars": {"A": "1"}}, ["-s"], marks=pytest.mark.slow),
    ],
)
def test_workers_are_copies_of_what_has_imported_torch(environment: dict[str, Any], options: list[str]) -> None:
    code = f"""
from cluster.session import session
from llmray.job.training import Scale
import ray, sys
with session(Scale(), cpus=1):
    asked = ray.remote(lambda: ("torch" in sys.modules, sys.flags.no_user_site)).options(runtime_env={environment})
    print(ray.get(asked.remote(), timeout=60))
"""
    out = subprocess.run(
        [sys.executable, *options, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert out.stdout.strip() == f"(True, {len(options)})", out.stderr


@pytest.mark.slow
def test_workers_start_from_a_path_with_spaces(tmp_path: Path) -> None:
    """With a runtime environment of their own, which is what Ray Train's and Serve's actors have."""
    (tmp_path / "my venv").symlink_to(sys.prefix)
    code = """
from cluster.session import session
from llmray.job.training import Scale
import ray, sys
with session(Scale(), cpus=1):
    asked = ray.remote(lambda: sys.executable).options(runtime_env={"env_vars": {"A": "1"}})
    print(ray.get(asked.remote(), timeout=60))
"""
    python = tmp_path / "my venv" / "bin" / "python"
    out = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert out.stdout.strip() == str(python), out.stderr


@pytest.mark.slow
@pytest.mark.parametrize("nice", [True, False])
def test_what_is_waited_for_has_the_priority_of_other_programs(nice: bool) -> None:
    code = f"""
from cluster.session import session
from llmray.job.training import Scale
import os, ray
with session(Scale(), cpus=1, nice={nice}):
    print(ray.get(ray.remote(lambda: os.nice(0)).remote(), timeout=60) - os.nice(0))
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (int(out.stdout) != 0) == nice, out.stderr


def test_an_interruption_waits_until_ray_has_ended() -> None:
    code = """
from cluster.session import session
from llmray.job.training import Scale
import os, ray, signal
end = ray.shutdown
def interrupted():
    os.kill(os.getpid(), signal.SIGINT)
    end()
ray.shutdown = interrupted
try:
    with session(Scale(), cpus=1):
        pass
except KeyboardInterrupt:
    print("interrupted, then" if ray.is_initialized() else "ended, then interrupted")
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert out.stdout.strip() == "ended, then interrupted", out.stderr
