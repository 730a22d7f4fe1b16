"""llmray's own server in front of a model that always says the same: what there is beside the model.

It does not know how it is asked.
"""

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from ray import serve as ray_serve

from cluster.session import session
from llmray.job.schema import Endpoint, Limits, Serve
from llmray.job.training import Scale
from llmray.store.journal import Progress
from llmray.tasks.base import Answer, Request
from llmray.training.stopping import interrupts
from serve import deploy

ANSWER: Answer = {"candidates": [{"label": "yes", "score": 1.0}]}


@ray_serve.deployment
@ray_serve.ingress()
class Echo:
    """As `serve.actors.Replica`, but for the model."""

    def __init__(self, endpoint: Endpoint, model: str, keys: str | None, limits: Limits) -> None:
        from serve import replica
        from serve.gate import Gate
        from serve.keys import Keys
        from serve.meter import Meter
        from serve.shapes import Identity
        from serve.whole import write_whole

        write_whole()
        batcher = replica.queue(endpoint, self, limits, Meter())  # type: ignore[arg-type]
        gate, known = Gate(Keys(keys) if keys else None, limits), Identity("echo", "1", "none", "")
        self.application = replica.application(endpoint, known, batcher, gate, {})

    def predict(self, requests: Sequence[Request]) -> list[Answer]:
        return [ANSWER] * len(requests)

    stream = None

    def reconfigure(self, plan: dict[str, Any]) -> None:
        """Nothing to do, as in `Replica`."""

    def __serve_build_asgi_app__(self) -> FastAPI:
        return self.application


def run(folder: str, port: int, keys: str) -> None:
    """Serve until told to end; `folder`: any."""
    deploy.Replica = Echo  # type: ignore[misc]
    end = {"task": "classification", "model": folder, "engine": "torch", "cpus": 1, "max_replicas": 1}
    with session(Scale(), nice=False), interrupts() as gone:
        deploy.deploy(Serve.model_validate({"port": port, "keys": keys, "endpoints": [end]}), None, Progress.silent())
        gone.wait()
        deploy.shutdown()
