"""A cluster file is judged like a job file: every complaint names file, line, key, found, allowed, nearest."""

from pathlib import Path

import pytest

from cluster.spec import Cluster, load
from llmray.job.errors import JobError

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "clusters"
KUBERNETES = {"name": "a", "provider": "kubernetes", "image": "llmray:1"}
AWS = {
    "name": "a", "provider": "aws", "region": "eu-central-1", "machine_image": "ami-1", "ssh": {"from": ["10.0.0.0/8"]},
    "head": {"machine": "m7i.large"}, "workers": {"machine": "m7i.large"},
}  # fmt: skip


def complaint(tree: dict[str, object] | str) -> str:
    with pytest.raises(JobError) as caught:
        load(tree)
    return str(caught.value)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_example_is_right(path: Path) -> None:
    assert load(path).provider in (path.stem, "hosts")


def test_a_mistyped_key_names_file_line_and_nearest(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("name: a\nprovider: kubernetes\nimage: x\nworkers:\n  macs: 3\n")
    text = complaint(str(path))
    assert text.startswith(f"{path}:5: workers.macs: unknown key\n  found: 3\n  did you mean 'max'?\n  allowed: cpus, ")


def test_a_missing_file_is_a_missing_cluster_file() -> None:
    assert complaint("no/such.yaml") == "no/such.yaml: no such cluster file"


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"name": "a", "provider": "amazon"}, "input should be 'aws', 'gcp', 'azure', 'kubernetes' or 'hosts'"),
        ({"provider": "aws"}, "cluster: name: this key is required"),
        ({**KUBERNETES, "image": None}, "provider: kubernetes needs image"),
        ({**KUBERNETES, "region": "x"}, "region is a key of provider: aws, gcp, azure, not of kubernetes; remove it"),
        ({**KUBERNETES, "workers": {"min": 2, "max": 1}}, "min (2) is above max (1)"),
        ({**KUBERNETES, "workers": {"gpu": "L4"}}, "gpu: L4 has no number; give gpus"),
        ({**AWS, "head": {}}, "provider: aws needs head.machine"),
        ({**AWS, "ssh": {}}, "ssh.from: give the network that may reach port 22"),
        (
            {**AWS, "ssh": {"from": ["1.2.3.4/8"]}},
            "1.2.3.4/8 has host bits set; a network is written as 203.0.113.7/32",
        ),
        ({**AWS, "hosts": {"head": "h"}}, "hosts is a key of provider: hosts, not of aws"),
        ({"name": "a", "provider": "hosts", "hosts": {"head": "h"}, "ssh": {}}, "ssh.key: give the private key"),
    ],
)
def test_what_does_not_fit_together_is_refused(tree: dict[str, object], words: str) -> None:
    assert words in complaint(tree)


def test_what_was_judged_is_not_judged_again() -> None:
    spec = load(KUBERNETES)
    assert load(spec) is spec
    assert isinstance(spec, Cluster)
