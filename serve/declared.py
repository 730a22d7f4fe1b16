"""Endpoints in the words of Ray Serve's configuration files, for what deploys from those, such as KubeRay.

It does not know who reads them.
"""

from collections.abc import Mapping
from typing import Any

from ray.serve import Application

from llmray.job.load import load
from llmray.job.schema import Job
from llmray.model.registry import nearest
from serve.deploy import bound
from serve.environment import prepare_environment
from serve.haproxy import base_settings
from serve.rollout import Plan, plans

EVERYWHERE = "0.0.0.0"
PORT = 8000


def config(job: Job) -> dict[str, Any]:
    """A configuration file (`ServeDeploySchema`) that serves a job's endpoints on port 8000 of every node.

    Raises `JobError` where there is no API key, and as `plans` does.
    """
    settled = _settled(job)
    about = {"output": job.output, "serve": settled.serve.model_dump(mode="json", by_alias=True, exclude_unset=True)}
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": EVERYWHERE, "port": PORT},
        "applications": [
            {
                "name": plan.task,
                "route_prefix": plan.route,
                "import_path": f"{__name__}:application",
                "args": {"name": plan.task, **about},
            }
            for plan in _plans(settled)
        ],
    }


def environment() -> dict[str, str]:
    """Environment variables of every node's Ray."""
    return base_settings()


def application(args: Mapping[str, Any]) -> Application:
    """What `import_path` names: the application called `name` of the job whose `serve` and `output` are given."""
    job = load({key: args[key] for key in ("output", "serve")})
    [plan] = [plan for plan in _plans(_settled(job)) if plan.task == args["name"]]
    app: Application = bound(plan)
    return app


def _settled(job: Job) -> Job:
    everywhere = job.serve.model_copy(update={"host": EVERYWHERE, "port": PORT})
    return job.model_copy(update={"serve": prepare_environment(everywhere, job.output, joins=True)})


def _plans(job: Job) -> list[Plan]:
    return plans(job.serve, nearest(job.output), ())
