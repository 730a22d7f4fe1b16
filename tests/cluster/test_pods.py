"""What a pod on Kubernetes does before its Ray starts, done here: only pods of one authority hear one another."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cluster.providers import kubernetes, tls
from cluster.spec import load

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "clusters" / "kubernetes.yaml"
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "b" * 32}
"""The operator gives it to every container."""
SERVICE = "finetune-x7k2p-head-svc.ml.svc.cluster.local"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("clusters"),
    pytest.mark.skipif(not shutil.which("unshare") or os.getuid() != 0, reason="mounts need root and `unshare`"),
]


class Pod:
    """It has a pod's names, environment and certificate; its processes and network are this machine's."""

    def __init__(self, folder: Path, authority: Path, ray: list[str]) -> None:
        _, cluster = kubernetes.cluster(load(CONFIG))
        spec: dict[str, Any] = cluster["spec"]["headGroupSpec"]["template"]["spec"]
        [certifier], [container] = spec["initContainers"], spec["containers"]
        (folder / "tls").mkdir(parents=True)
        (folder / "hosts").write_text(f"127.0.0.1 localhost {SERVICE}\n")
        (folder / "resolv.conf").write_text("search ml.svc.cluster.local svc.cluster.local\nnameserver 127.0.0.1\n")
        places = {
            "/etc/hosts": folder / "hosts",
            "/etc/resolv.conf": folder / "resolv.conf",
            kubernetes.AUTHORITY: authority / "tls",
            kubernetes.CERTIFICATE: folder / "tls",
        }
        mounts = [f"mount --bind '{here}' {there}" for there, here in places.items()]
        folders = f"mount -t tmpfs none /run && mkdir -p {kubernetes.AUTHORITY} {kubernetes.CERTIFICATE}"
        inside = " && ".join([folders, *mounts, 'exec "$@"'])
        self.prefix = ["unshare", "--mount", "sh", "-c", inside, "pod"]
        self.ray, self.env = ray, {**TOKEN, **{pair["name"]: pair["value"] for pair in container["env"]}}
        command = [*self.prefix, *certifier["command"]]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def finds_the_head(self, port: int, **env: str) -> bool:
        """As the operator asks before a worker's Ray starts."""
        command = [*self.prefix, *self.ray, "health-check", "--address", f"{SERVICE}:{port}"]
        done = subprocess.run(command, env=os.environ | self.env | env, capture_output=True, timeout=120, check=False)
        return done.returncode == 0


def test_pods_of_one_authority_hear_one_another_and_nobody_else(
    tmp_path: Path, head_ports: Callable[[], dict[str, int]], plain_python: Path
) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for authority in (ours, theirs):
        authority.mkdir()
        tls.make_authority(authority, "finetune")
    ray, ports = [str(plain_python), "-m", "ray.scripts.scripts"], head_ports()
    head, worker, stranger = (
        Pod(tmp_path / name, authority, ray) for name, authority in (("head", ours), ("worker", ours), ("x", theirs))
    )
    assert sorted(path.name for path in (tmp_path / "head" / "tls").iterdir()) == [
        "ca.crt", "names", "node.crt", "node.csr", "node.key",
    ]  # fmt: skip
    options = [f"--{name}={port}" for name, port in ports.items()]
    start = [*ray, "start", "--head", "--block", "--num-cpus=1", "--disable-usage-stats", *options]
    with (tmp_path / "log").open("w") as log:
        running = subprocess.Popen(
            [*head.prefix, *start], env=os.environ | head.env, stdout=log, stderr=log, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 120
        while not worker.finds_the_head(ports["port"]):
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(1)
        with ThreadPoolExecutor() as pool:  # each is told so after 40 s
            unencrypted = pool.submit(worker.finds_the_head, ports["port"], RAY_USE_TLS="0")
            foreign = pool.submit(stranger.finds_the_head, ports["port"])
        assert (unencrypted.result(), foreign.result()) == (False, False)
    finally:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
