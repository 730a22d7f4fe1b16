"""Facts come from every node of a real Ray; what is wrong with the storage is told from where it is wrong."""

from pathlib import Path

import pytest
import ray

from cluster.facts import judge
from cluster.probe import Probe, _storage_fault, _told, gather


def test_a_real_node_tells_the_truth_of_itself(ray_cluster: None, tmp_path: Path) -> None:
    (node,) = gather(str(tmp_path / "storage"))
    assert node.address == ray.util.get_node_ip_address()
    assert node.versions["ray"] == ray.__version__
    assert node.cpus == ray.cluster_resources()["CPU"]
    assert node.disk_free_gib > 0
    assert (node.storage_fault, node.exposed, node.unreachable, node.skew_s) == ("", (), (), 0.0)
    assert list((tmp_path / "storage").iterdir()) == []


def test_storage_that_cannot_be_written_is_found(ray_cluster: None, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (node,) = gather(f"{tmp_path}/file/below")
    assert [finding.node for finding in judge([node]) if "storage: " in finding.fault] == [node.address]


def test_a_missing_bucket_is_found(object_store: object) -> None:
    assert _storage_fault("s3://bucket/below") == ""
    assert "nosuch" in _storage_fault("s3://nosuch/below")


def test_a_port_that_is_closed_and_one_that_takes_what_comes() -> None:
    probe = Probe()
    port = probe.listen()
    assert probe.closed([("127.0.0.1", port), ("127.0.0.1", 9)]) == ("127.0.0.1:9",)
    assert probe.send_gbps(("127.0.0.1", port)) > 0


def test_gpus_as_the_driver_tells_them() -> None:
    gpus, driver = _told("NVIDIA L4, 23034, 570.1, 0\nNVIDIA L4, 23034, 570.1, [N/A]\nNVIDIA L4, 23034, 570.1, 2\n")
    assert driver == {"driver": "570.1"}
    assert [gpu.fault for gpu in gpus] == ["", "", "2 memory errors that could not be corrected"]
    assert gpus[0].memory_gib == pytest.approx(22.5, abs=0.01)
