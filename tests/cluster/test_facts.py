"""Each planted fault is found, and named with the way out; a cluster without one has none."""

from dataclasses import replace

import pytest

from cluster.facts import Gpu, Node, judge
from llmray.job.load import load
from llmray.job.schema import Job

L4 = Gpu("NVIDIA L4", 22.0)
SOUND = Node("10.0.0.1", {"ray": "2.60.0", "python": "3.12.3"}, memory_gib=16, cpus=4, disk_free_gib=80, gpus=(L4,))
NODES = [replace(SOUND, address=f"10.0.0.{i}", link_gbps=9.0) for i in (1, 2, 3)]


def job(*overrides: str) -> Job:
    return load({"task": "causal_lm", "train": {"steps": 1, "batch_size": 12}}, overrides)


def test_a_sound_cluster_has_no_fault() -> None:
    head = replace(NODES[0], gpus=())
    workers = [replace(node, versions={**node.versions, "driver": "570.1"}) for node in NODES[1:]]
    assert judge([head, *workers]) == []
    assert judge(NODES) == []
    assert judge(NODES, job("scale={workers: 3, gpus_per_worker: 1}"), worker_gib=10.0) == []


@pytest.mark.parametrize(
    ("planted", "words"),
    [
        ({"versions": {"ray": "2.59.0", "python": "3.12.3"}}, "ray is 2.59.0, others have 2.60.0; install the same"),
        ({"versions": {"ray": "none"}}, "ray is none, others have 2.60.0"),
        ({"disk_free_gib": 1.5}, "1.5 GiB of disk are free; Ray needs 10"),
        ({"skew_s": -4.0}, "its clock is 4.0 s behind; set it by NTP"),
        ({"storage_fault": "s3://b/x: no such bucket"}, "storage: s3://b/x: no such bucket"),
        ({"unreachable": ("10.0.0.3:9999",)}, "cannot connect to 10.0.0.3:9999; open all ports among"),
        ({"exposed": ("http://10.0.0.2:8265",)}, "whoever reaches http://10.0.0.2:8265 can run programs here"),
        ({"link_gbps": 0.1}, "sends 0.10 Gbit/s to the next node, the fastest link 9.00"),
        ({"gpus": (replace(L4, fault="3 uncorrected memory errors"),)}, "NVIDIA L4: 3 uncorrected memory errors"),
    ],
)
def test_a_planted_fault_is_found_where_it_is(planted: dict[str, object], words: str) -> None:
    found = judge([NODES[0], replace(NODES[1], **planted), NODES[2]])  # type: ignore[arg-type]
    assert [(finding.node, words in finding.fault) for finding in found] == [("10.0.0.2", True)]


@pytest.mark.parametrize(
    ("scale", "worker_gib", "words"),
    [
        ("{workers: 4, gpus_per_worker: 1}", None, "the job wants 4 GPUs, the cluster has 3"),
        ("{workers: 3, cpus_per_worker: 8}", None, "nodes have room for 0 workers, the job has 3"),
        (
            "{workers: 3, gpus_per_worker: 1}",
            30.0,
            "a worker takes about 30.0 GiB, of which the roomiest place has 19",
        ),
        ("{workers: 3}", 6.0, "a worker takes about 6.0 GiB, of which the roomiest place has 4.8"),
    ],
)
def test_a_job_that_does_not_fit_is_told_why(scale: str, worker_gib: float | None, words: str) -> None:
    (finding,) = judge(NODES, job(f"scale={scale}"), worker_gib)
    assert finding.fault.startswith(words)
