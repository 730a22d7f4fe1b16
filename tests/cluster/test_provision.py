"""What a cluster owns on AWS appears as declared and goes whole: against moto's AWS, by Ray's launcher, a real sshd."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml

from cluster.providers import aws_owned
from cluster.spec import load
from llmray.job.errors import ClusterError

pytestmark = pytest.mark.xdist_group("clusters")

REGION = "eu-central-1"
OWNER = "203.0.113.7/32"
TREE: dict[str, Any] = {
    "name": "try", "provider": "aws", "region": REGION, "machine_image": "ami-12c6146b",
    "ssh": {"user": "ubuntu", "from": [OWNER]}, "storage": "s3://bucket/runs",
    "head": {"machine": "m5.xlarge", "price": 0.2},
    "workers": {"machine": "g4dn.xlarge", "gpus": 1, "max": 2, "spot": True, "price": 0.3},
}  # fmt: skip
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0Ji6mGnNhZrmvd/r5Y3pJ5GJ5jVbbcWn4BcGpFk1pS test"


def test_what_is_owned_is_closed_and_goes_whole(object_store: object) -> None:
    spec = load(TREE)
    owned = aws_owned.make(spec, KEY)
    assert aws_owned.make(spec, KEY) == owned
    ec2, iam = boto3.client("ec2", REGION), boto3.client("iam", REGION)
    (group,) = ec2.describe_security_groups(GroupIds=[owned["security_group"]])["SecurityGroups"]
    assert open_to(group) == [(22, OWNER)]
    policies = {
        role: iam.get_role_policy(RoleName=f"llmray-try-{role}", PolicyName="llmray")["PolicyDocument"]
        for role in ("head", "worker")
    }
    assert "ec2:RunInstances" in json.dumps(policies["head"])
    assert "ec2:" not in json.dumps(policies["worker"])
    assert aws_owned.left(spec) == [
        f"security group {owned['security_group']}", "key pair llmray-try",
        "role llmray-try-head", "role llmray-try-worker",
    ]  # fmt: skip
    aws_owned.remove(spec)
    assert aws_owned.left(spec) == []
    aws_owned.remove(spec)


def test_a_machine_that_still_runs_is_told(object_store: object) -> None:
    spec, ec2 = load(TREE), boto3.client("ec2", REGION)
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "ray-cluster-name", "Value": "try"}]}]
    made = ec2.run_instances(ImageId="ami-12c6146b", MinCount=1, MaxCount=1, TagSpecifications=tags)["Instances"]
    assert aws_owned.left(spec) == [f"instance {made[0]['InstanceId']}"]
    ec2.terminate_instances(InstanceIds=[made[0]["InstanceId"]])
    assert aws_owned.left(spec) == []


def test_an_aws_that_does_not_answer_is_told(object_store: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(ClusterError, match="cluster try: AWS, eu-central-1: Could not connect"):
        aws_owned.make(load(TREE), KEY)


def open_to(group: dict[str, Any]) -> list[tuple[int, str]]:
    """Ports and networks that a security group lets in from outside itself."""
    return [(rule["FromPort"], ip["CidrIp"]) for rule in group["IpPermissions"] for ip in rule.get("IpRanges", [])]


KEYS = ("client/.llmray/clusters/try/key.pub", "client/.llmray/clusters/rest/key.pub", "lab.pub")


class Machine:
    """A network and a process namespace in which every address of moto's machines is one sshd's, and so the head."""

    def __init__(self, folder: Path) -> None:
        self.name, self.folder, self.home = f"llmray-aws-{os.getpid()}", folder, folder / "home"
        self.env = os.environ | {
            "AWS_ENDPOINT_URL": "http://127.0.0.1:5000", "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing", "HOME": str(folder / "client"), "TMPDIR": str(folder),
        }  # fmt: skip
        for name in ("client", "home", "ray"):
            (folder / name).mkdir()
        self.process: subprocess.Popen[bytes] | None = None
        self.prepare()

    def start(self) -> None:
        links = """link set lo up
            link add eth0 type veth peer name eth1
            link set eth1 up
            address add 10.200.0.1/24 dev eth0
            link set eth0 up
            route add default dev eth0
            route add local 54.0.0.0/8 dev lo"""
        for words in ("netns add " + self.name, *(f"-n {self.name} {line}" for line in links.splitlines())):
            subprocess.run(["ip", *words.split()], check=True)
        inside = ["unshare", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc"]
        with (self.folder / "log").open("w") as log:
            command = ["ip", "netns", "exec", self.name, *inside, "bash", str(self.folder / "start")]
            self.process = subprocess.Popen(command, env=self.env, stdout=log, stderr=log)

    def prepare(self) -> None:
        """A user's home with everything installed, and what starts sshd and moto."""
        (self.home / "llmray-venv").symlink_to(sys.prefix)
        shutil.copy(Path(__file__).parents[2] / "constraints.txt", self.home / ".llmray-installed")
        (self.home / ".ssh").mkdir(mode=0o700)
        key = self.folder / "hostkey"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        passwd = f"root:x:0:0::/root:/bin/bash\nubuntu:x:0:0::{self.home}:/bin/bash\nsshd:x:100:65534::/:/bin/false\n"
        (self.folder / "passwd").write_text(passwd)
        (self.folder / "shadow").write_text("root:*:1::::::\nubuntu:*:1::::::\n")
        told = " ".join(f"{name}={value}" for name, value in self.env.items() if name.startswith("AWS_"))
        (self.folder / "sshd_config").write_text(
            f"HostKey {key}\nPasswordAuthentication no\nPermitRootLogin yes\nStrictModes no\nUsePAM no\n"
            f"AuthorizedKeysFile {' '.join(f'{self.folder}/{key}' for key in KEYS)}\n"
            f"SetEnv {told}\n"
        )
        (self.folder / "start").write_text(
            f"mkdir -p /tmp/ray /run/sshd && mount --bind {self.folder}/ray /tmp/ray\n"
            f"for name in passwd shadow; do mount --bind {self.folder}/$name /etc/$name; done\n"
            f"'{sys.executable}' -m moto.server -p 5000 &\n"
            f"exec /usr/sbin/sshd -D -e -f {self.folder}/sshd_config\n"
        )

    def run(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        command = ["ip", "netns", "exec", self.name, sys.executable, *words]
        return subprocess.run(command, env=self.env | env, capture_output=True, text=True, timeout=280, check=False)

    def llmray(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        return self.run("-m", "llmray", *words, **env)

    def aws(self, method: str) -> dict[str, Any]:
        code = f"import boto3, json; print(json.dumps(boto3.client('ec2', '{REGION}').{method}(), default=str))"
        done = self.run("-c", code)
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    def end(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
        with suppress(subprocess.CalledProcessError):
            subprocess.run(["ip", "netns", "delete", self.name], check=True)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    missing = [tool for tool in ("ip", "unshare", "ssh", "sshd", "rsync") if not shutil.which(tool, path=PATH)]
    if missing or os.getuid() != 0:
        pytest.skip(f"needs root and {', '.join(missing)} (Debian: apt install openssh-server rsync)")
    made = Machine(tmp_path_factory.mktemp("machine"))
    try:
        made.start()
        yield made
    finally:
        made.end()


PATH = f"{os.environ['PATH']}:/usr/sbin"


@pytest.mark.slow
def test_a_cluster_comes_up_is_seen_and_leaves_nothing(machine: Machine, tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump(TREE))
    wait_for_aws(machine)
    up = machine.llmray("cluster", "up", str(path), "--json")
    assert up.returncode == 0, up.stderr[-3000:]
    told = json.loads(up.stdout)
    assert (told["nodes"], told["per_hour"]) == (1, 0.2)
    (reservation,) = machine.aws("describe_instances")["Reservations"]
    (head,) = reservation["Instances"]
    assert head["InstanceType"] == "m5.xlarge"
    assert head["PublicIpAddress"] in told["tunnel"]
    assert head["IamInstanceProfile"]["Arn"].endswith("llmray-try-head")
    groups = {group["GroupId"]: group for group in machine.aws("describe_security_groups")["SecurityGroups"]}
    assert [open_to(groups[one["GroupId"]]) for one in head["SecurityGroups"]] == [[(22, OWNER)]]

    variables = dict(pair.split("=", 1) for pair in told["token"].split())
    jobs = ["jobs", "list", "--address", told["address"]]
    assert machine.llmray(*jobs, **variables).returncode == 0
    refused = machine.llmray(*jobs, RAY_AUTH_MODE="disabled")
    assert refused.returncode == 1
    assert refused.stderr.startswith("llmray jobs: http://127.0.0.1:8265: ")
    assert "the cluster wants its token" in refused.stderr

    down = machine.llmray("cluster", "down", str(path), "--json")
    assert down.returncode == 0, down.stderr[-3000:]
    assert json.loads(down.stdout) == {"name": "try", "left": [], "notes": []}
    states = [one["State"]["Name"] for r in machine.aws("describe_instances")["Reservations"] for one in r["Instances"]]
    assert states == ["terminated"]
    assert not (machine.folder / "client" / ".llmray" / "clusters" / "try").exists()


@pytest.mark.slow
def test_ray_comes_up_on_a_given_host_and_is_stopped_there(machine: Machine, tmp_path: Path) -> None:
    key, path = machine.folder / "lab", tmp_path / "cluster.yaml"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    tree = {
        "name": "lab",
        "provider": "hosts",
        "hosts": {"head": "10.200.0.1"},
        "ssh": {"user": "ubuntu", "key": str(key)},
    }
    path.write_text(yaml.safe_dump(tree))
    up = machine.llmray("cluster", "up", str(path), "--json")
    assert up.returncode == 0, up.stderr[-3000:]
    told = json.loads(up.stdout)
    assert told["tunnel"] == f"ssh -i {key} -N -L 8265:127.0.0.1:8265 ubuntu@10.200.0.1"
    variables = dict(pair.split("=", 1) for pair in told["token"].split())
    jobs = ["jobs", "list", "--address", told["address"]]
    assert machine.llmray(*jobs, **variables).returncode == 0
    down = machine.llmray("cluster", "down", str(path), "--json")
    assert down.returncode == 0, down.stderr[-3000:]
    assert machine.llmray(*jobs, **variables).returncode == 1


@pytest.mark.slow
@pytest.mark.skipif(" " in sys.prefix, reason="Ray starts no job's workers where its own path has a space")
def test_a_cluster_that_nobody_uses_ends_by_itself(machine: Machine, tmp_path: Path) -> None:
    path, log = tmp_path / "cluster.yaml", machine.home / ".llmray-rest.log"
    path.write_text(yaml.safe_dump(TREE | {"name": "rest", "head_idle_minutes": 1}))
    wait_for_aws(machine)
    up = machine.llmray("cluster", "up", str(path), "--json")
    assert up.returncode == 0, up.stderr[-3000:]
    variables = dict(pair.split("=", 1) for pair in json.loads(up.stdout)["token"].split())
    job = "from ray.job_submission import JobSubmissionClient as C; C('{}').submit_job(entrypoint='sleep 75')"
    began = time.monotonic()
    submitted = machine.run("-c", job.format(json.loads(up.stdout)["address"]), **variables)
    assert submitted.returncode == 0, submitted.stderr[-3000:]
    while time.monotonic() < began + 75:
        assert states_of(machine, "rest") == ["running"], log.read_text()
        time.sleep(5)
    until = time.monotonic() + 120
    while states_of(machine, "rest") != ["terminated"]:
        assert time.monotonic() < until, log.read_text()
        time.sleep(2)
    assert "nobody had work: ending i-" in log.read_text()
    down = machine.llmray("cluster", "down", str(path), "--json")
    assert json.loads(down.stdout)["left"] == []


def states_of(machine: Machine, name: str) -> list[str]:
    """Of the machines that a cluster had."""
    found = [one for r in machine.aws("describe_instances")["Reservations"] for one in r["Instances"]]
    tagged = {"Key": "ray-cluster-name", "Value": name}
    return [one["State"]["Name"] for one in found if tagged in one["Tags"]]


def wait_for_aws(machine: Machine) -> None:
    until, asking = time.monotonic() + 60, f"import boto3; boto3.client('ec2', '{REGION}').describe_regions()"
    while machine.run("-c", asking).returncode:
        assert time.monotonic() < until, (machine.folder / "log").read_text()
