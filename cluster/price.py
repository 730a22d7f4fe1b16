"""How long a training run takes and what that costs, estimated before anything starts.

It knows no price list: what an hour of a node costs stands in the cluster file.
"""

import math

from cluster.shape import Shape
from cluster.spec import Cluster
from llmray.job.schema import Job
from llmray.training.flops import peak_of

UTILISATION = 0.4
"""Share of a GPU's peak that a run is taken to use; `flops_utilisation` of a first short run is the real one."""


def hours(job: Job, shape: Shape, gpu: str | None) -> float | None:
    """Time of the run's steps, without start-up; None where its steps, FLOPs or GPU are not known beforehand."""
    peak = peak_of(gpu) if gpu else None
    if not (peak and shape.flops and job.train.steps and job.scale.gpus_per_worker):
        return None
    tokens = job.train.steps * job.train.batch_size * shape.length
    return tokens * shape.flops / (UTILISATION * peak * job.scale.workers * job.scale.gpus_per_worker) / 3600


def cost(job: Job, spec: Cluster, hours: float) -> float | None:
    """Of the head and as many worker nodes as the job needs; None without their prices."""
    if spec.head.price is None or spec.workers.price is None or not spec.workers.gpus:
        return None
    nodes = math.ceil(job.scale.workers * job.scale.gpus_per_worker / spec.workers.gpus)
    return hours * (spec.head.price + nodes * spec.workers.price)
