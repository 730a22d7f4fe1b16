"""A cluster file → manifests for Kubernetes with the KubeRay operator (1.6 or newer).  It does not talk to Kubernetes.

Every container runs without root and without privileges, every request needs the token that the operator makes, only
pods of the cluster and the operator reach it, and its pods speak TLS: before a pod's own container starts, another one,
which alone sees the authority's key, makes the pod's certificate.
"""

from collections.abc import Mapping
from typing import Any

import yaml

from cluster.providers import tls
from cluster.spec import Cluster, Nodes, Workers

RAY_VERSION = "2.60.0"
USER = 1000
"""The Dockerfile's user."""
OPERATOR = {"matchLabels": {"app.kubernetes.io/name": "kuberay-operator"}}
ENDS_AFTER_S = 600
AUTHORITY, CERTIFICATE = "/run/llmray/authority", "/run/llmray/tls"
SERVICES = r"sed -n 's/^search \([^ ]*\).*/,DNS:*.\1/p' /etc/resolv.conf"
"""Workers reach the head at its Service, whose name the operator chooses, in the namespace's domain."""
CERTIFY = f"cp {AUTHORITY}/* {CERTIFICATE} && {tls.certify(CERTIFICATE, SERVICES)} && rm ca.key"


def kubectl(spec: Cluster) -> list[str]:
    """The words that every command about this cluster begins with."""
    context = ["--context", spec.where.context] if spec.where.context else []
    return ["kubectl", *context, "--namespace", spec.where.namespace]


def authority(spec: Cluster, files: Mapping[str, str]) -> dict[str, Any]:
    """What signs the pods' certificates, as a Secret."""
    metadata = _metadata(spec, secret_name(spec))
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": dict(files)}


def secret_name(spec: Cluster) -> str:
    return f"{spec.name}-tls"


def cluster(spec: Cluster) -> list[dict[str, Any]]:
    """A cluster that stays until it is removed; workers come and go."""
    return [_fence(spec), _object(spec, "RayCluster", _ray(spec))]


def job(spec: Cluster, verb: str, job_yaml: str) -> list[dict[str, Any]]:
    """One verb on a cluster that comes for it and is removed after it."""
    name = f"{spec.name}-{verb}"
    files = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _metadata(spec, name), "data": {"job.yaml": job_yaml}}
    ray = _ray(spec)
    pod = ray["headGroupSpec"]["template"]["spec"]
    pod["volumes"].append({"name": "job", "configMap": {"name": name}})
    pod["containers"][0]["volumeMounts"].append({"name": "job", "mountPath": "/job", "readOnly": True})
    body = {
        "entrypoint": f"python -m llmray {verb} /job/job.yaml scale.address=auto --json",
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": ENDS_AFTER_S,
        "backoffLimit": 2,
        "submissionMode": "HTTPMode",
        "rayClusterSpec": ray,
    }
    return [_fence(spec), files, _object(spec, "RayJob", body, name)]


def service(spec: Cluster, serving: Mapping[str, Any], env: Mapping[str, str]) -> list[dict[str, Any]]:
    """Endpoints that stay; when a changed file is applied, the old ones answer until the new ones do.

    `serving`: a configuration file of Ray Serve.  Its port is open to all: it asks for API keys.
    """
    fence, ray = _fence(spec), _ray(spec)
    fence["spec"]["ingress"].append({"ports": [{"port": serving["http_options"]["port"]}]})
    for group in _groups(ray):
        [container] = group["template"]["spec"]["containers"]
        container["env"] += _environment(env)
    body = {"serveConfigV2": yaml.safe_dump(dict(serving), sort_keys=False), "rayClusterConfig": ray}
    return [fence, _object(spec, "RayService", body)]


def _ray(spec: Cluster) -> dict[str, Any]:
    return {
        "rayVersion": RAY_VERSION,
        "authOptions": {"mode": "token"},
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": {
            "version": "v2",
            "idleTimeoutSeconds": 60 * spec.idle_minutes,
            "securityContext": _unprivileged(),
            "env": _environment(tls.variables(CERTIFICATE)),
            "volumeMounts": [_certificate()],
        },
        "headGroupSpec": {
            # KubeRay reaches the dashboard through the pod's address; `_fence` and the token close it to others.
            "rayStartParams": {"dashboard-host": "0.0.0.0"},
            "serviceType": "ClusterIP",
            "template": _pod(spec, spec.head, "ray-head"),
        },
        "workerGroupSpecs": [
            {
                "groupName": "workers",
                "replicas": spec.workers.min,
                "minReplicas": spec.workers.min,
                "maxReplicas": spec.workers.max,
                "rayStartParams": {},
                "template": _pod(spec, spec.workers, "ray-worker"),
            }
        ],
    }


def _pod(spec: Cluster, nodes: Nodes, name: str) -> dict[str, Any]:
    gpus = {"nvidia.com/gpu": str(nodes.gpus)} if nodes.gpus else {}
    size = {"cpu": str(nodes.cpus), "memory": f"{nodes.memory_gb}Gi", **gpus}
    spot = isinstance(nodes, Workers) and nodes.spot
    container = {
        "name": name,
        "image": spec.image,
        "resources": {"requests": {**size, "ephemeral-storage": f"{nodes.disk_gb}Gi"}, "limits": size},
        "securityContext": _unprivileged(),
        "env": _environment(tls.variables(CERTIFICATE)),
        "volumeMounts": [
            {"name": "shm", "mountPath": "/dev/shm"},
            {"name": "ray", "mountPath": "/tmp/ray"},
            _certificate(),
        ],
    }
    # Ray keeps its objects in shared memory, of which a container has 64 MiB unless told.
    shm = {"medium": "Memory", "sizeLimit": f"{max(1, nodes.memory_gb * 3 // 10)}Gi"}
    return {
        "spec": {
            "securityContext": {"runAsNonRoot": True, "runAsUser": USER, "fsGroup": USER},
            "initContainers": [_certifier(spec)],
            "containers": [container],
            "volumes": [
                {"name": "shm", "emptyDir": shm},
                {"name": "ray", "emptyDir": {}},
                {"name": "tls", "emptyDir": {"medium": "Memory"}},
                {"name": "authority", "secret": {"secretName": secret_name(spec), "defaultMode": 0o440}},
            ],
            **({"nodeSelector": nodes.labels} if nodes.labels else {}),
            **({"terminationGracePeriodSeconds": 30} if spot else {}),
        }
    }


def _certificate() -> dict[str, Any]:
    return {"name": "tls", "mountPath": CERTIFICATE, "readOnly": True}


def _certifier(spec: Cluster) -> dict[str, Any]:
    size = {"cpu": "500m", "memory": "256Mi"}
    return {
        "name": "certify",
        "image": spec.image,
        "command": ["sh", "-c", CERTIFY],
        "resources": {"requests": size, "limits": dict(size)},
        "securityContext": _unprivileged(),
        "volumeMounts": [
            {"name": "tls", "mountPath": CERTIFICATE},
            {"name": "authority", "mountPath": AUTHORITY, "readOnly": True},
        ],
    }


def _environment(variables: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in variables.items()]


def _unprivileged() -> dict[str, Any]:
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
        "runAsNonRoot": True,
    }


def _fence(spec: Cluster) -> dict[str, Any]:
    """Only the cluster's own pods and the operator may open connections to its pods."""
    allowed = [{"podSelector": _own(spec)}, {"podSelector": OPERATOR, "namespaceSelector": {}}]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _metadata(spec),
        "spec": {"podSelector": _own(spec), "policyTypes": ["Ingress"], "ingress": [{"from": allowed}]},
    }


def _own(spec: Cluster) -> dict[str, Any]:
    return {"matchLabels": {"llmray": spec.name}}


def _object(spec: Cluster, kind: str, body: dict[str, Any], name: str | None = None) -> dict[str, Any]:
    for group in _groups(body.get("rayClusterSpec") or body.get("rayClusterConfig") or body):
        group["template"]["metadata"] = {"labels": {"llmray": spec.name}}
    return {"apiVersion": "ray.io/v1", "kind": kind, "metadata": _metadata(spec, name), "spec": body}


def _groups(ray: dict[str, Any]) -> list[dict[str, Any]]:
    return [ray["headGroupSpec"], *ray["workerGroupSpecs"]]


def _metadata(spec: Cluster, name: str | None = None) -> dict[str, Any]:
    return {"name": name or spec.name, "namespace": spec.where.namespace, "labels": {"llmray": spec.name}}
