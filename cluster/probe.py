"""Gathers what is known of a Ray cluster's nodes, by an actor on each.  It does not judge.

Actors need no CPU of Ray's, so that a cluster at work can be looked at too.
"""

import logging
import shutil
import socket
import subprocess
import sys
import threading
import time
import uuid
from importlib import metadata
from typing import Any

import ray
import requests
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.facts import Gpu, Node
from llmray.job.errors import LlmrayError
from llmray.store import place

PACKAGES = ("ray", "torch", "transformers", "pyarrow")
CONNECT_WITHIN_S, GIB = 3, 2**30
SENT_MIB, CHUNK = 64, 2**20
GPU_QUERY = ("name", "memory.total", "driver_version", "ecc.errors.uncorrected.volatile.total")


def gather(storage: str | None = None) -> list[Node]:
    """Facts of every node that is alive; `storage` is where each is to write a file and read it back."""
    here = ray.get_runtime_context().gcs_address
    joined = ray.init(here, ignore_reinit_error=True, logging_level=logging.ERROR)
    dashboard = str(joined.address_info["webui_url"])
    alive = [node for node in ray.nodes() if node["Alive"]]
    probes = [_on(node) for node in alive]
    facts = [probe.facts.remote(node, storage, dashboard) for probe, node in zip(probes, alive, strict=True)]
    links = _links(alive, probes)
    found = [
        Node(**fact, **link, skew_s=_skew_s(p)) for fact, link, p in zip(ray.get(facts), links, probes, strict=True)
    ]
    for probe in probes:
        ray.kill(probe)
    return found


def _links(alive: list[dict[str, Any]], probes: list[Any]) -> list[dict[str, Any]]:
    """What each node reaches of the others: an ear on some port, as training workers have, and Ray's object store."""
    addresses = [node["NodeManagerAddress"] for node in alive]
    ears = list(zip(addresses, ray.get([probe.listen.remote() for probe in probes]), strict=True))
    stores = [(node["NodeManagerAddress"], node["ObjectManagerPort"]) for node in alive]
    links = []
    for index, probe in enumerate(probes):
        others = [ear for ear in ears + stores if ear[0] != addresses[index]]
        closed = ray.get(probe.closed.remote(others))
        following = ears[(index + 1) % len(ears)]
        reached = following[0] != addresses[index] and f"{following[0]}:{following[1]}" not in closed
        speed = ray.get(probe.send_gbps.remote(following)) if reached else None
        links.append({"unreachable": closed, "link_gbps": speed})
    return links


def _on(node: dict[str, Any]) -> Any:
    here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    return ray.remote(Probe).options(num_cpus=0, scheduling_strategy=here).remote()


def _skew_s(probe: Any) -> float:
    """What a clock is ahead of ours, less what the way to it and back may hide."""
    before = time.time()
    there = ray.get(probe.clock.remote())
    after = time.time()
    return there - after if there > after else min(0.0, there - before)


class Probe:
    """What one node can say of itself."""

    def facts(self, node: dict[str, Any], storage: str | None, dashboard: str) -> dict[str, Any]:
        address, python = node["NodeManagerAddress"], sys.version.split()[0]
        gpus, driver = _gpus()
        return {
            "address": address,
            "versions": {"python": python, **{name: _version(name) for name in PACKAGES}, **driver},
            "memory_gib": node["Resources"].get("memory", 0.0) / GIB,
            "cpus": node["Resources"].get("CPU", 0.0),
            "disk_free_gib": shutil.disk_usage("/tmp").free / GIB,
            "gpus": gpus,
            "storage_fault": _storage_fault(storage) if storage else "",
            "exposed": _exposed(address, dashboard),
        }

    def clock(self) -> float:
        return time.time()

    def listen(self) -> int:
        """A port that takes what comes, as long as the actor lives."""
        ear = socket.create_server(("", 0))
        threading.Thread(target=_drain, args=(ear,), daemon=True).start()
        return int(ear.getsockname()[1])

    def closed(self, addresses: list[tuple[str, int]]) -> tuple[str, ...]:
        return tuple(f"{host}:{port}" for host, port in addresses if not _opens(host, port))

    def send_gbps(self, address: tuple[str, int]) -> float:
        """Speed to another node's ear, from the first byte to the answer to the last."""
        piece = bytes(CHUNK)
        with socket.create_connection(address, CONNECT_WITHIN_S) as connection:
            connection.settimeout(None)
            start = time.perf_counter()
            for _ in range(SENT_MIB):
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1)
        return SENT_MIB * CHUNK * 8 / 1e9 / (time.perf_counter() - start)


def _drain(ear: socket.socket) -> None:
    while True:
        connection, _ = ear.accept()
        with connection:
            while connection.recv(CHUNK):
                pass


def _opens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), CONNECT_WITHIN_S).close()
    except OSError:
        return False
    return True


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "none"


def _storage_fault(storage: str) -> str:
    path, text = place.join(storage, f".llmray-check-{uuid.uuid4().hex}"), "written and read back"
    try:
        place.write_text(path, text)
        same = place.read_text(path) == text
        place.remove(path)
    except (LlmrayError, OSError) as error:
        return f"{storage}: {error}"
    return "" if same else f"{path}: what was read is not what was written"


def _exposed(address: str, dashboard: str) -> tuple[str, ...]:
    """The dashboard's API, where it answers on an address beyond this machine without a token."""
    host = dashboard.rpartition(":")[0]
    if host != address or host.startswith("127."):
        return ()
    try:
        answer = requests.get(f"http://{dashboard}/api/jobs/", timeout=CONNECT_WITHIN_S)
    except requests.exceptions.RequestException:
        return ()
    return (f"http://{dashboard}",) if answer.ok else ()


def _gpus() -> tuple[tuple[Gpu, ...], dict[str, str]]:
    """What NVIDIA's driver says of each, and its own version; nothing where there is no driver."""
    query = ["nvidia-smi", f"--query-gpu={','.join(GPU_QUERY)}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    except (FileNotFoundError, subprocess.CalledProcessError):
        return (), {}
    return _told(answer)


def _told(answer: str) -> tuple[tuple[Gpu, ...], dict[str, str]]:
    rows = [[part.strip() for part in line.split(",")] for line in answer.strip().splitlines()]
    gpus = tuple(Gpu(name, float(mebibytes) / 1024, _broken(errors)) for name, mebibytes, _, errors in rows)
    return gpus, {"driver": rows[0][2]} if rows else {}


def _broken(errors: str) -> str:
    return f"{errors} memory errors that could not be corrected" if errors.isdigit() and int(errors) else ""
