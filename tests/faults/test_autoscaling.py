"""A sweep asks for more than its cluster has: machines come, and go when there is nothing left for them to do.

The autoscaler is Ray's own; its fake provider's machines are processes on this one.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
from ray._raylet import GcsClient
from ray.core.generated.gcs_pb2 import GcsNodeInfo

from serve.head import outside

pytestmark = pytest.mark.xdist_group("clusters")

ALIVE = GcsNodeInfo.GcsNodeState.ALIVE
HEAD = "fffffffffffffffffffffffffffffffffffffffffffffffffff00000"
COMMANDS = [
    *("cluster_synced_files", "initialization_commands", "setup_commands", "head_setup_commands"),
    *("worker_setup_commands", "head_start_ray_commands", "worker_start_ray_commands"),
]
"""What Ray's autoscaler wants to be there, though nobody logs in to start these machines."""
SWEEP = [
    *("task={name: causal_lm, seq_len: 32}", "model.from=new:gpt2-tiny", "data.train=builtin:shapes?rows=400"),
    *("data.tokenizer={vocab_size: 400, sample_rows: 200}", "train={steps: 200, batch_size: 8, eval_every: 20}"),
    *("data.eval=builtin:shapes?rows=16&split=eval", "scale={workers: 1, cpus_per_worker: 1}"),
    "tune={space: {train.learning_rate: [1e-3, 2e-3, 3e-3, 4e-3]}, trials: 4, concurrent: 4, grace_steps: 200}",
]


def config(address: str) -> dict[str, object]:
    kinds = {
        "head": {"resources": {"CPU": 2}, "node_config": {}, "max_workers": 0},
        "machine": {"resources": {"CPU": 2}, "node_config": {}, "min_workers": 0, "max_workers": 2},
    }
    return {
        "cluster_name": "sweep",
        "provider": {
            **{"type": "fake_multinode", "head_node_id": HEAD},
            **{"gcs_address": address, "launch_multiple": True, "disable_node_updaters": True},
        },
        "available_node_types": kinds,
        "head_node_type": "head",
        "max_workers": 2,
        "idle_timeout_minutes": 0.1,
        "upscaling_speed": 1.0,
        **{name: {} for name in ("auth", "docker", "file_mounts")},
        **{name: [] for name in COMMANDS},
    }


@pytest.fixture
def address(tmp_path: Path, head_ports: Callable[[], dict[str, int]], plain_python: Path) -> Iterator[str]:
    """Of a head that may have two machines more."""
    ports = head_ports()
    found = f"{outside()}:{ports['port']}"
    (tmp_path / "autoscaling.json").write_text(json.dumps(config(found)))
    command = [str(plain_python), "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=2"]
    command += [f"--{name}={port}" for name, port in ports.items()]
    command += [f"--autoscaling-config={tmp_path / 'autoscaling.json'}", "--disable-usage-stats"]
    told = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_AUTH_MODE": "disabled"}
    told |= {"RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD, "RAY_CLOUD_INSTANCE_ID": HEAD}
    with (tmp_path / "head.log").open("w") as log:
        head = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | told, start_new_session=True)
    try:
        until(lambda: machines(found) == 1, 120, tmp_path / "head.log")
        yield found
    finally:
        os.killpg(head.pid, signal.SIGKILL)  # asked to end, its control store takes 30 s
        head.wait(60)


def machines(address: str) -> int:
    """How many are alive; -1 when the head does not say, being busy or not there yet."""
    try:
        found = GcsClient(address=address).get_all_node_info(timeout=5).values()
    except ray.exceptions.RpcError:
        return -1
    return sum(node.state == ALIVE for node in found)


def until(true: Callable[[], bool], within_s: float, log: Path) -> None:
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_machines_come_for_a_sweep_and_go_after_it(address: str, tmp_path: Path) -> None:
    said = tmp_path / "said"
    words = ["tune", *SWEEP, f"scale.address={address}", f"output={tmp_path / 'sweep'}"]
    with said.open("w") as file:
        sweep = subprocess.Popen([sys.executable, "-m", "llmray", *words], stdout=file, stderr=file)
    most = 1
    while sweep.poll() is None:
        most = max(most, machines(address))
        time.sleep(0.2)
    assert sweep.returncode == 0, said.read_text()
    assert most > 1, said.read_text()
    until(lambda: machines(address) == 1, 90, said)
