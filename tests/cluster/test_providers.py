"""What the tools read is what they accept, and closed to strangers: Ray, Kubernetes, KubeRay, SkyPilot."""

import gzip
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from cluster.providers import aws, kubernetes, launcher, skypilot, tls
from cluster.spec import Cluster, load

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "clusters"
OWNED = {"security_group": "sg-1", "public_key": "ssh-ed25519 AAAA"}
JOB = "task: causal_lm\n"
SERVING = {"http_options": {"host": "0.0.0.0", "port": 8000}, "applications": [{"name": "qa", "route_prefix": "/qa"}]}


def spec(name: str) -> Cluster:
    return load(CONFIGS / f"{name}.yaml")


def launched(name: str) -> dict[str, Any]:
    return launcher.config(spec(name), Path("/folder"), OWNED)


@pytest.mark.parametrize("name", ["aws", "gcp", "azure", "hosts"])
def test_ray_accepts_it(name: str) -> None:
    validate_config(prepare_config(launched(name)))


@pytest.mark.parametrize("name", ["aws", "gcp", "azure", "hosts"])
def test_every_node_asks_for_the_token_and_the_dashboard_stays_on_loopback(name: str) -> None:
    config = launched(name)
    (start,) = [one for one in config["head_start_ray_commands"] if "--head" in one]
    assert "--dashboard-host=127.0.0.1" in start
    for commands in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        assert "RAY_AUTH_MODE=token" in commands[-1]
        assert "RAY_USE_TLS=1" in commands[-1]
    assert config["file_mounts"]["~/.ray/auth_token"] == "/folder/token"
    assert "/folder/token" not in json.dumps(config["setup_commands"])


def test_spot_machines_are_asked_for_where_the_file_says_so() -> None:
    nodes = {name: launched(name)["available_node_types"] for name in ("aws", "gcp", "azure")}
    assert nodes["aws"]["worker"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert nodes["gcp"]["worker"]["node_config"]["scheduling"]["provisioningModel"] == "SPOT"
    assert nodes["azure"]["worker"]["node_config"]["azure_arm_parameters"]["priority"] == "Spot"
    assert "InstanceMarketOptions" not in nodes["aws"]["head"]["node_config"]
    assert nodes["aws"]["worker"]["min_workers"] == 0
    assert nodes["aws"]["worker"]["max_workers"] == 4


def test_only_the_owner_reaches_ssh_on_aws() -> None:
    inside, ssh = aws.ingress(spec("aws"), "sg-1")
    assert inside == {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": "sg-1"}]}
    assert ssh == {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "203.0.113.7/32"}]}


def test_roles_reach_one_bucket_and_only_the_head_starts_machines() -> None:
    head, worker = (aws.policy(spec("aws"), role, "123456789012")["Statement"] for role in aws.ROLES)
    allowed = {action for statement in worker for action in statement["Action"]}
    assert all(action.startswith("s3:") for action in allowed)
    assert worker == head[: len(worker)]
    assert worker[1]["Resource"] == ["arn:aws:s3:::my-bucket/llmray/*"]
    ends = next(one for one in head if "ec2:TerminateInstances" in one["Action"])
    assert ends["Condition"] == {"StringEquals": {"aws:ResourceTag/ray-cluster-name": "finetune"}}
    assert not any(action == "*" or action.endswith(":*") for one in head for action in one["Action"])


def manifests() -> list[dict[str, Any]]:
    cluster = spec("kubernetes")
    return [
        kubernetes.authority(cluster, dict.fromkeys(tls.AUTHORITY, "PEM")),
        *kubernetes.cluster(cluster),
        *kubernetes.job(cluster, "train", JOB),
        *kubernetes.service(cluster, SERVING, {"RAY_SERVE_ENABLE_HA_PROXY": "1"}),
    ]


def closed(schema: Any) -> Any:
    """A schema of Kubernetes' kind, under which unknown keys are errors, as they are for `kubectl apply`."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and "x-kubernetes-preserve-unknown-fields" not in schema:
        schema.setdefault("additionalProperties", False)
    return schema


def test_kubernetes_accepts_it() -> None:
    for manifest in manifests():
        if not manifest["apiVersion"].startswith("ray.io"):
            kubernetes_validate.validate(manifest, "1.33", strict=True)


@pytest.mark.slow
def test_kuberay_accepts_it(shared_data: Path) -> None:
    kinds = [manifest for manifest in manifests() if manifest["apiVersion"] == "ray.io/v1"]
    assert [manifest["kind"] for manifest in kinds] == ["RayCluster", "RayJob", "RayService"]
    for manifest in kinds:
        definition = shared_data / "kuberay" / f"ray.io_{manifest['kind'].lower()}s.yaml.gz"
        versions = yaml.safe_load(gzip.decompress(definition.read_bytes()))["spec"]["versions"]
        (schema,) = [one["schema"]["openAPIV3Schema"] for one in versions if one["name"] == "v1"]
        jsonschema.validate(manifest["spec"], closed(schema["properties"]["spec"]))


def test_pods_have_no_root_no_privileges_a_token_tls_and_a_fence() -> None:
    fence, cluster = kubernetes.cluster(spec("kubernetes"))
    ray = cluster["spec"]
    assert ray["authOptions"] == {"mode": "token"}
    for group in (ray["headGroupSpec"], *ray["workerGroupSpecs"]):
        template = group["template"]
        assert template["spec"]["securityContext"]["runAsNonRoot"] is True
        (container,) = template["spec"]["containers"]
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert template["metadata"]["labels"] == fence["spec"]["podSelector"]["matchLabels"]
        assert kubernetes.AUTHORITY not in {mount["mountPath"] for mount in container["volumeMounts"]}
        assert {"name": "RAY_USE_TLS", "value": "1"} in container["env"]
    assert {"name": "RAY_USE_TLS", "value": "1"} in ray["autoscalerOptions"]["env"]
    assert (
        ray["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    )


def test_a_rayservice_opens_nothing_but_the_port_that_asks_for_keys() -> None:
    fence, service = kubernetes.service(spec("kubernetes"), SERVING, {"RAY_SERVE_ENABLE_HA_PROXY": "1"})
    inside, open_to_all = fence["spec"]["ingress"]
    assert inside == kubernetes.cluster(spec("kubernetes"))[0]["spec"]["ingress"][0]
    assert open_to_all == {"ports": [{"port": 8000}]}
    assert yaml.safe_load(service["spec"]["serveConfigV2"]) == SERVING
    ray = service["spec"]["rayClusterConfig"]
    for group in (ray["headGroupSpec"], *ray["workerGroupSpecs"]):
        (container,) = group["template"]["spec"]["containers"]
        assert {"name": "RAY_SERVE_ENABLE_HA_PROXY", "value": "1"} in container["env"]
        assert group["template"]["metadata"]["labels"] == fence["spec"]["podSelector"]["matchLabels"]


def test_a_rayjob_brings_its_job_file_and_goes_when_it_ends() -> None:
    _, files, job = kubernetes.job(spec("kubernetes"), "train", JOB)
    assert files["data"] == {"job.yaml": JOB}
    pod = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    mounted = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["job"]["configMap"]["name"] == files["metadata"]["name"]
    assert f"{mounted['job']}/job.yaml" in job["spec"]["entrypoint"]
    assert job["spec"]["shutdownAfterJobFinishes"] is True


SKYPILOT = """
import sys, yaml
from sky.utils import common_utils, schemas
task = yaml.safe_load(sys.stdin)
common_utils.validate_schema(task["resources"], schemas.get_resources_schema(), "")
common_utils.validate_schema(task, schemas.get_task_schema(), "")
"""


@pytest.mark.parametrize("name", ["aws", "gcp", "azure", "kubernetes"])
def test_skypilot_accepts_it(name: str) -> None:
    sky = shutil.which("sky")
    if sky is None:
        pytest.skip("no SkyPilot here: `pipx install skypilot` (its pins and ours exclude each other)")
    python = Path(sky).resolve().parent / "python"
    task = yaml.safe_dump(skypilot.task(spec(name), "train", "job.yaml"))
    done = subprocess.run([python, "-c", SKYPILOT], input=task, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
