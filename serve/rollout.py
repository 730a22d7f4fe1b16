"""What a running application is made of, so that deploying again changes only what differs.

It does not know Ray, which keeps a plan beside its application.
"""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from llmray.job.schema import Endpoint, Limits, Serve
from llmray.model import forms, registry
from llmray.store import place
from serve.shapes import GENERATING, PREFIXES

FRONT = "openai"


class Plan(BaseModel):
    """One application.  Where two plans are equal, so are their replicas."""

    model_config = ConfigDict(frozen=True)

    task: str
    """Its name: the task, and for further models of one task also theirs."""
    route: str
    model: str
    """What it serves, in the job's words."""
    keys: str = ""
    """File of API keys; empty: none."""
    limits: Limits = Limits()
    folders: dict[str, str]
    """Task → folder of the model behind it; a hub id where that is none."""
    weights: str = ""
    """Hash of a folder's weights, which another training may overwrite; a registered version never changes."""
    forms: str = ""
    """Fingerprint of the forms beside the weights, one of which may run them."""
    endpoint: Endpoint | None = None
    """None: it passes requests on to other applications."""
    release: str = version("llmray")


def plans(serve: Serve, registry_near: str | None, running: Sequence[Plan]) -> list[Plan]:
    """One plan an endpoint, and one in front of those that generate.

    Models that run already stay behind it, but for those with other keys: one job's keys must not open another's.
    """
    keys = str(Path(serve.keys).absolute()) if serve.keys and "://" not in serve.keys else serve.keys or ""
    firsts = {endpoint.task.name: endpoint for endpoint in reversed(serve.endpoints)}
    made = [
        _plan(endpoint, registry_near, keys, serve.limits, first=firsts[endpoint.task.name] is endpoint)
        for endpoint in serve.endpoints
    ]
    behind = {plan.task: plan for plan in (*running, *made) if plan.keys == keys and plan.task in GENERATING}
    if not behind:
        return made
    models = ", ".join(plan.model for plan in behind.values())
    folders = {task: plan.folders[task] for task, plan in behind.items()}
    front = Plan(task=FRONT, route=PREFIXES[FRONT], model=models, keys=keys, limits=serve.limits, folders=folders)
    return [*made, front]


def _plan(endpoint: Endpoint, registry_near: str | None, keys: str, limits: Limits, *, first: bool) -> Plan:
    """An alias is settled as the version it names now, or replicas that start later could differ."""
    app: str = endpoint.task.name
    route, folder, weights = PREFIXES[app], endpoint.model, ""
    if not first:
        app, route = f"{app}-{endpoint.name}", f"{route}/{endpoint.name}"
    if folder.startswith(registry.PREFIX):
        folder = registry.referred(folder, registry_near).folder
    elif place.is_local(folder) and (files := sorted(Path(folder).glob("*.safetensors"))):
        weights = registry.sha256(files)
    if place.is_local(folder) and place.exists(folder):
        folder = str(Path(folder).absolute())
    beside = "" if endpoint.engine == "torch" else forms.fingerprint(folder)
    return Plan(
        task=app, route=route, model=endpoint.model, keys=keys, limits=limits, folders={app: folder}, weights=weights,
        forms=beside, endpoint=endpoint,
    )  # fmt: skip


def plan_of(user_config: Mapping[str, Any] | None) -> Plan | None:
    """The plan of an application that runs; None for one that this release does not know."""
    try:
        return Plan.model_validate(user_config)
    except ValidationError:
        return None
