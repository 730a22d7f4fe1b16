"""A cluster file: where machines come from, which they are, how many, and who may reach them.

It does not know how any cloud is asked for them.  As in a job file, a field's docstring is its only documentation.
"""

from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from llmray.job.load import judge
from llmray.job.section import Section

ProviderName = Literal["aws", "gcp", "azure", "kubernetes", "hosts"]
NEEDED: dict[str, tuple[str, ...]] = {
    "aws": ("region", "machine_image", "ssh", "head.machine", "workers.machine"),
    "gcp": ("region", "zone", "project", "machine_image", "ssh", "head.machine", "workers.machine"),
    "azure": ("region", "resource_group", "subscription", "machine_image", "ssh", "head.machine", "workers.machine"),
    "kubernetes": ("image",),
    "hosts": ("hosts", "ssh"),
}
ONLY_FOR: dict[str, tuple[str, ...]] = {
    "region": ("aws", "gcp", "azure"),
    "zone": ("aws", "gcp"),
    "project": ("gcp",),
    "resource_group": ("azure",),
    "subscription": ("azure",),
    "machine_image": ("aws", "gcp", "azure"),
    "ssh": ("aws", "gcp", "azure", "hosts"),
    "image": ("kubernetes",),
    "kubernetes": ("kubernetes",),
    "hosts": ("hosts",),
}


def _network(text: str) -> str:
    try:
        return str(ip_network(text))
    except ValueError as error:
        raise ValueError(f"{error}; a network is written as 203.0.113.7/32") from None


class Nodes(Section):
    machine: str | None = None
    """The provider's kind of machine: `g6.xlarge`, `g2-standard-4`, `Standard_NC4as_T4_v3`; not for `kubernetes`, which
    asks for `cpus` and `memory_gb`, nor for `hosts`, which are what they are."""
    cpus: int = Field(4, ge=1)
    """CPUs of a node, as Ray counts them. On `aws` they follow from the kind of machine."""
    memory_gb: int = Field(16, ge=1)
    """Memory of a node on `kubernetes`, in GiB."""
    gpu: str | None = None
    """Kind of GPU, as SkyPilot names it: `L4`, `A100`, `H100`."""
    gpus: int = Field(0, ge=0)
    """GPUs of a node."""
    labels: dict[str, str] = Field({})
    """Labels that a Kubernetes node must have to carry one of these."""
    disk_gb: int = Field(100, ge=30)
    """Disk of a node, in GiB."""
    price: float | None = Field(None, ge=0)
    """What an hour of a node costs you, in your currency; `cluster status` multiplies with it."""

    @model_validator(mode="after")
    def kind_and_number_of_gpus(self) -> "Nodes":
        if self.gpu and not self.gpus:
            raise ValueError(f"gpu: {self.gpu} has no number; give gpus, or remove gpu")
        return self


class Workers(Nodes):
    min: int = Field(0, ge=0)
    """Workers that stay even when idle."""
    max: int = Field(1, ge=0)
    """Most workers; Ray starts them when work waits for them."""
    spot: bool = False
    """Take machines that the cloud may take back: cheaper, and a run goes on from its newest checkpoint."""

    @model_validator(mode="after")
    def ordered(self) -> "Workers":
        if self.min > self.max:
            raise ValueError(f"min ({self.min}) is above max ({self.max})")
        return self


class Ssh(Section):
    user: str = "ubuntu"
    """Whom to log in as."""
    sources: tuple[Annotated[str, AfterValidator(_network)], ...] = Field((), alias="from")
    """Who may reach port 22: networks as `203.0.113.7/32`. Nothing else is open to the outside. On `aws`, `gcp` and
    `azure` at least one."""
    key: Path | None = None
    """Private key; null: one that is made for this cluster alone. `hosts` need one that they know already."""


class Hosts(Section):
    head: str
    """Address of the head."""
    workers: tuple[str, ...] = ()
    """Addresses of the workers; each must be reachable by SSH from the head."""


class Kubernetes(Section):
    namespace: str = "default"
    """Namespace of everything that is made."""
    context: str | None = None
    """Context of `kubectl`; null: the current one."""


class Cluster(Section):
    """One cluster file."""

    name: str = Field(pattern=r"^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$")
    """Names everything that is made for this cluster."""
    provider: ProviderName
    """Where machines come from: a cloud, `kubernetes` with the KubeRay operator, or given `hosts` over SSH."""
    region: str | None = None
    """Region of the cloud."""
    zone: str | None = None
    """Availability zone; on `aws`, null: any of the region's."""
    project: str | None = None
    """Project on `gcp`."""
    resource_group: str | None = None
    """Resource group on `azure`, best one for this cluster alone: removing it removes all."""
    subscription: str | None = None
    """Subscription on `azure`."""
    machine_image: str | None = None
    """What machines start from, with Python 3.11 or 3.12 and, for GPUs, their driver: an AMI's id on `aws`, the path of
    an image or a family on `gcp`, `PUBLISHER:OFFER:SKU:VERSION` on `azure`."""
    image: str | None = None
    """Container image, built from the project's Dockerfile."""
    hosts: Hosts | None = None
    """The machines of `hosts`."""
    kubernetes: Kubernetes | None = None
    """Where in `kubernetes`."""
    head: Nodes = Nodes()
    """The node that schedules, keeps the dashboard and starts the others."""
    workers: Workers = Workers()
    """The nodes that work."""
    storage: str | None = None
    """Bucket or folder (`s3://…`, `gs://…`, `az://…`, a path on NFS) under which jobs write. On `aws` it is the only
    one that nodes get access to."""
    idle_minutes: int = Field(10, ge=1)
    """Minutes without work after which a worker beyond `min` is given back."""
    head_idle_minutes: int = Field(60, ge=0)
    """Minutes without a job, a connected program or an endpoint after which all machines end, the head and the workers
    of `min` too; 0: never. Only on `aws`, `gcp` and `azure`."""
    ssh: Ssh | None = None
    """How machines are reached, and from where."""

    @model_validator(mode="after")
    def provider_has_what_it_needs(self) -> "Cluster":
        for key in NEEDED[self.provider]:
            if _at(self, key) is None:
                raise ValueError(f"provider: {self.provider} needs {key}")
        if self.provider == "azure" and str(self.machine_image).count(":") != 3:
            raise ValueError(f"machine_image: {self.machine_image} is not PUBLISHER:OFFER:SKU:VERSION")
        if self.provider in ("aws", "gcp", "azure") and not (self.ssh and self.ssh.sources):
            raise ValueError("ssh.from: give the network that may reach port 22, as 203.0.113.7/32")
        if self.provider == "hosts" and not (self.ssh and self.ssh.key):
            raise ValueError("ssh.key: give the private key that the hosts know")
        return self

    @model_validator(mode="after")
    def no_key_of_another_provider(self) -> "Cluster":
        for key, theirs in ONLY_FOR.items():
            if getattr(self, key) is not None and self.provider not in theirs:
                raise ValueError(f"{key} is a key of provider: {', '.join(theirs)}, not of {self.provider}; remove it")
        return self

    @property
    def where(self) -> Kubernetes:
        """The keys of `kubernetes`, or their defaults."""
        return self.kubernetes or Kubernetes()

    @property
    def access(self) -> Ssh:
        """The keys of `ssh`, or their defaults."""
        return self.ssh or Ssh()


def load(source: Mapping[str, Any] | str | Path | Cluster, overrides: tuple[str, ...] = ()) -> Cluster:
    """Judge a cluster file (or a mapping).  Raises `JobError`."""
    return source if isinstance(source, Cluster) else judge(Cluster, source, overrides, "cluster")


def _at(cluster: Cluster, dotted: str) -> Any:
    value: Any = cluster
    for part in dotted.split("."):
        value = getattr(value, part)
    return value
