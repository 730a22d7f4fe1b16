"""What Ray Serve runs: a model's replica, and the one in front of those that generate.

It does not know how they are deployed (`deploy`), nor what they answer (`replica`, `front`).
"""

from collections.abc import AsyncGenerator, Mapping
from typing import Any

import ray
from fastapi import FastAPI
from ray import serve as ray_serve
from ray.serve.handle import DeploymentHandle

from llmray.job.errors import RequestError
from llmray.job.schema import Endpoint, Limits
from serve.between import keep_to_loopback
from serve.gate import Gate
from serve.keys import Keys
from serve.meter import Meter
from serve.shapes import Identity, Part
from serve.whole import write_whole


@ray_serve.deployment
@ray_serve.ingress()
class Replica:
    """One copy of one endpoint's model.  Ray Serve sends it requests once the constructor is through."""

    def __init__(self, endpoint: Endpoint, model: str, keys: str | None, limits: Limits) -> None:
        from serve import completions, replica  # torch and transformers: seconds that the driver need not spend

        keep_to_loopback()
        write_whole()
        self.endpoint = endpoint
        self.predictor = replica.load(endpoint, model)
        self.batcher = replica.queue(endpoint, self.predictor, limits, Meter())
        self.answered = completions.respond
        self.example = replica.example(self.predictor)
        self.known = replica.identity(self.predictor, model)
        self.application = replica.application(
            endpoint, self.known, self.batcher, _gate(keys, limits), self.predictor.about
        )

    def reconfigure(self, plan: dict[str, Any]) -> None:
        """Nothing to do: Serve keeps the plan for `status` and the next `deploy`."""

    def __serve_build_asgi_app__(self) -> FastAPI:
        return self.application

    async def check_health(self) -> None:
        """Ray Serve asks every few seconds, and puts another replica in the place of one that raises three times."""
        await self.batcher.check(self.example)

    async def identity(self) -> Identity:
        return self.known

    async def respond(self, body: bytes) -> AsyncGenerator[Part, None]:
        async for part in self.answered(self.endpoint.task.name, self.known, self.batcher, body):
            yield part


@ray_serve.deployment
@ray_serve.ingress()
class Front:
    """OpenAI's routes, passed on to the replicas of `models` (task → model)."""

    def __init__(self, models: Mapping[str, str], keys: str | None, limits: Limits) -> None:
        from serve import front

        keep_to_loopback()
        write_whole()
        self.application = front.build({task: Remote(task) for task in models}, _gate(keys, limits))

    def reconfigure(self, plan: dict[str, Any]) -> None:
        """Nothing to do, as in `Replica`."""

    def __serve_build_asgi_app__(self) -> FastAPI:
        return self.application


def _gate(keys: str | None, limits: Limits) -> Gate:
    return Gate(Keys(keys) if keys else None, limits)


class Remote:
    """A model that other replicas hold; the load is spread among them."""

    def __init__(self, task: str) -> None:
        self.handle: Any = DeploymentHandle(task, task)
        self.task = task

    async def identity(self) -> Identity:
        found: Identity = await self.handle.identity.remote()
        return found

    async def respond(self, body: bytes) -> AsyncGenerator[Part, None]:
        parts = self.handle.options(stream=True).respond.remote(body)
        try:
            async for part in parts:
                yield part
        except ray.exceptions.RayActorError:
            raise RequestError(f"the replica of {self.task} has gone; try again soon", 503) from None
        finally:
            parts.cancel()
