"""What is known of a cluster's nodes before a job is sent there, and what is wrong with it.

It does not know how the facts were gathered.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from llmray.job.results import Finding
from llmray.job.schema import Job

LEAST_DISK_GIB = 10.0
"""Ray stops starting work on a node whose disk is 95 % full, and spills objects to it before."""
MOST_SKEW_S = 1.0
"""Logs and checkpoints of several nodes are put in order by time."""
SLOW_SHARE = 0.25
"""A link slower than this share of the fastest one holds every step of all workers up."""
USABLE = 0.9
"""Share of a device's memory that a worker can have: the rest is its context and fragments."""


@dataclass(frozen=True)
class Gpu:
    name: str
    memory_gib: float
    fault: str = ""
    """What the driver counts as broken, as memory errors that it could not correct."""


@dataclass(frozen=True)
class Node:
    address: str
    versions: dict[str, str]
    """Package → version; `python` and, where there are GPUs, their `driver` among them."""
    memory_gib: float
    cpus: float
    disk_free_gib: float
    skew_s: float = 0.0
    """How far its clock is ahead of this machine's, beyond what the way there and back leaves open."""
    gpus: tuple[Gpu, ...] = ()
    storage_fault: str = ""
    """What went wrong in writing and reading back a file in the storage."""
    unreachable: tuple[str, ...] = ()
    """`ADDRESS:PORT` of other nodes that it cannot open a connection to."""
    exposed: tuple[str, ...] = ()
    """URLs on addresses beyond this machine that execute what they are sent, from anyone."""
    link_gbps: float | None = None
    """Bits a second, in thousands of millions, to the next node."""


def judge(nodes: Sequence[Node], job: Job | None = None, worker_gib: float | None = None) -> list[Finding]:
    """Everything that is wrong, worst first: the cluster as it is, then whether the job fits."""
    found = [*_versions(nodes), *(finding for node in nodes for finding in _node(node)), *_links(nodes)]
    return found + (list(_fit(nodes, job, worker_gib)) if job else [])


def _versions(nodes: Sequence[Node]) -> Iterator[Finding]:
    """A version is wrong where most nodes have another one."""
    for package in sorted({name for node in nodes for name in node.versions}):
        with_it = [node for node in nodes if package in node.versions]
        usual, _ = Counter(node.versions[package] for node in with_it).most_common(1)[0]
        for node in with_it:
            if (here := node.versions[package]) != usual:
                yield Finding(fault=f"{package} is {here}, others have {usual}; install the same", node=node.address)


def _node(node: Node) -> Iterator[Finding]:
    if node.exposed:
        urls = ", ".join(node.exposed)
        fault = f"whoever reaches {urls} can run programs here; bind it to loopback, and set RAY_AUTH_MODE=token"
        yield Finding(fault=fault, node=node.address)
    if node.disk_free_gib < LEAST_DISK_GIB:
        fault = f"{node.disk_free_gib:.1f} GiB of disk are free; Ray needs {LEAST_DISK_GIB:.0f}"
        yield Finding(fault=fault, node=node.address)
    if abs(node.skew_s) > MOST_SKEW_S:
        way = "ahead" if node.skew_s > 0 else "behind"
        fault = f"its clock is {abs(node.skew_s):.1f} s {way}; set it by NTP"
        yield Finding(fault=fault, node=node.address)
    if node.storage_fault:
        yield Finding(fault=f"storage: {node.storage_fault}", node=node.address)
    for address in node.unreachable:
        fault = f"cannot connect to {address}; open all ports among the cluster's nodes"
        yield Finding(fault=fault, node=node.address)
    for gpu in node.gpus:
        if gpu.fault:
            yield Finding(fault=f"{gpu.name}: {gpu.fault}; take this node out", node=node.address)


def _links(nodes: Sequence[Node]) -> Iterator[Finding]:
    speeds = [node.link_gbps for node in nodes if node.link_gbps is not None]
    for node in nodes:
        if node.link_gbps is not None and node.link_gbps < SLOW_SHARE * max(speeds):
            fault = f"sends {node.link_gbps:.2f} Gbit/s to the next node, the fastest link {max(speeds):.2f}"
            yield Finding(fault=fault, node=node.address)


def _fit(nodes: Sequence[Node], job: Job, worker_gib: float | None) -> Iterator[Finding]:
    scale = job.scale
    wanted, there = scale.workers * scale.gpus_per_worker, sum(len(node.gpus) for node in nodes)
    if wanted > there:
        yield Finding(fault=f"the job wants {wanted:g} GPUs, the cluster has {there}; lower scale, or add nodes")
        return
    places = sum(_places(node, job) for node in nodes)
    if places < scale.workers:
        yield Finding(
            fault=f"nodes have room for {places} workers, the job has {scale.workers}; lower scale, or add nodes"
        )
    if worker_gib is None:
        return
    room = max(_room_gib(node, job) for node in nodes)
    if worker_gib > room:
        fault = (
            f"a worker takes about {worker_gib:.1f} GiB, of which the roomiest place has {room:.1f}; raise"
            " train.accumulate, set train.activation_checkpointing, scale.parallel: fsdp or train.lora, or take"
            " larger machines"
        )
        yield Finding(fault=fault)


def _places(node: Node, job: Job) -> int:
    """Workers that fit on a node at once, by what Ray reserves for them."""
    by_cpus = int(node.cpus // job.scale.cpus_per_worker)
    each = job.scale.gpus_per_worker
    return min(by_cpus, int(len(node.gpus) // each)) if each else by_cpus


def _room_gib(node: Node, job: Job) -> float:
    """Memory that one worker can have on a node: its GPUs', or its share of the node's."""
    if job.scale.gpus_per_worker:
        return USABLE * sum(sorted(gpu.memory_gib for gpu in node.gpus)[-max(1, int(job.scale.gpus_per_worker)) :])
    return USABLE * node.memory_gib / max(1, min(_places(node, job), job.scale.workers))
