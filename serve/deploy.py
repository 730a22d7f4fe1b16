"""Puts endpoints on a Ray cluster (Ray Serve), one application each, and takes them down.

It does not know what a replica does (`actors`), nor how HAProxy is kept to itself (`haproxy`).
"""

import logging
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import ray
from ray import serve as ray_serve
from ray.serve.api import RunTarget
from ray.serve.config import AutoscalingConfig
from ray.serve.schema import ApplicationStatus

from llmray.job.errors import ClusterError
from llmray.job.results import ServeResult
from llmray.job.schema import Serve
from llmray.store.journal import Progress
from serve import details, haproxy, head
from serve.actors import Front, Replica
from serve.environment import free_block, judge_host, judge_machines, prepare_environment, settle_port
from serve.rollout import Plan, plan_of, plans

__all__ = ["bound", "deploy", "prepare_environment", "shutdown", "status"]

READY_WITHIN_S = 600
GONE_WITHIN_S = 40
"""A little more than a replica may take to end its requests."""
POLL_S = 0.5
METRICS_EVERY_S, WAKES_EVERY_S = 10.0, 0.5
"""How often Serve is told how much is asked; where no copy runs, whoever asks waits until it is told twice."""
LABEL = "serve"


def deploy(serve: Serve, registry_near: str | None, progress: Progress) -> ServeResult:
    """Deploy every endpoint on the Ray that is initialised, and wait until each answers.

    A Serve that runs there already keeps its address, its other applications, and those that would be no different.
    An old version answers until the new one does; where one cannot, all that ran before stays.
    """
    progress.start(LABEL, len(serve.endpoints))
    fresh = not _is_running()
    try:
        if fresh:
            judge_machines(serve.host, sum(node["Alive"] for node in ray.nodes()))
        else:
            judge_host(_listens(_details())[0], serve.keys)
        running = _running()
        wanted = plans(serve, registry_near, [*running.values()])
        if fresh:
            _start(serve)
        _roll_out([plan for plan in wanted if running.get(plan.task) != plan], running, progress)
        result = status()
        _wait_for_proxy([plan.route for plan in wanted], result.url)
    except BaseException:
        if fresh:
            shutdown()
        raise
    progress.done(LABEL, result.url)
    if not fresh and not result.url.endswith(f":{serve.port}"):
        progress.note(f"Ray Serve was running already; it stays at {result.url}")
    return result


def status() -> ServeResult:
    """What is deployed on the Ray that is initialised."""
    if not _is_running():
        return ServeResult(url="", endpoints=())
    found = _details()
    url = details.base_url(*_listens(found), head.address())
    figures = haproxy.figures(_folder()) if head.is_here() else {}
    apps = found["applications"].values()
    return ServeResult(url=url, endpoints=tuple(details.endpoint(url, app, figures) for app in apps))


def _running() -> dict[str, Plan]:
    """What each application that answers is made of."""
    found = _details()["applications"] if _is_running() else {}
    apps = [app for app in found.values() if app["status"] == ApplicationStatus.RUNNING]
    known = [plan for app in apps if (plan := plan_of(details.described(app)))]
    return {plan.task: plan for plan in known}


def _roll_out(changed: list[Plan], running: dict[str, Plan], progress: Progress) -> None:
    _run(changed)
    try:
        _wait({plan.task: plan.route for plan in changed}, progress)
    except ClusterError:  # Serve keeps the old replicas, but would put broken ones in their place when they die
        _run([running[plan.task] for plan in changed if plan.task in running])
        raise


def _run(changed: list[Plan]) -> None:
    if changed:
        targets = [RunTarget(bound(plan), plan.task, plan.route) for plan in changed]
        ray_serve.run_many(targets, wait_for_applications_running=False)


def shutdown() -> None:
    """Let running requests end, then take everything down."""
    if not _is_running():
        return
    # `serve.shutdown()` waits on a call that dies with its actor, and Ray prints that as an error.
    ray.get(_controller().graceful_shutdown.remote(False))
    deadline = time.monotonic() + GONE_WITHIN_S
    while _is_running() and time.monotonic() < deadline:
        time.sleep(POLL_S)
    ray_serve.shutdown()
    if head.is_here():
        shutil.rmtree(_folder(), ignore_errors=True)
    head.forget()


def _folder() -> Path:
    """Where Ray keeps this Serve's HAProxy on the head."""
    return Path(haproxy.private_folder(), head.node()["NodeID"])


def _start(serve: Serve) -> None:
    """Start Serve; its controller hands HAProxy's settings to proxies and replicas."""
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    if head.is_here():
        _start_here(serve)
    else:
        _start_controller(serve.host, serve.port, haproxy.base_settings())
    head.remember(serve.host)


def _start_here(serve: Serve) -> None:
    """Replicas and Ray's own proxy listen where HAProxy does, or on loopback, if no other machine has any of them."""
    folder, inside = haproxy.private_folder(), head.LOOPBACK if head.is_alone() else serve.host
    with haproxy.starting_alone(folder):
        port = settle_port(serve)
        ours = haproxy.settings(folder, free_block(port), haproxy.bind(serve.host, port))
        _start_controller(inside, port, ours)


def _start_controller(host: str, port: int, env: dict[str, str]) -> None:
    try:
        ray_serve.start(
            http_options={"host": host, "port": port},
            proxy_location="HeadOnly",
            controller_options={"runtime_env": {"env_vars": env}},
        )
    except (ray.exceptions.RayError, TimeoutError) as error:
        raise ClusterError(f"Ray Serve did not start on {host}:{port}: {details.alert(str(error))}") from error


def bound(plan: Plan) -> Any:
    """An application as Ray Serve takes it."""
    options = {
        "name": plan.task,
        "user_config": plan.model_dump(mode="json"),
        "max_constructor_retry_count": 1,
        "graceful_shutdown_timeout_s": 30,
        "health_check_period_s": 5,
    }
    return _replica(plan, options) if plan.endpoint else _front(plan, options)


def _front(plan: Plan, options: dict[str, Any]) -> Any:
    """It reserves no CPU: it only passes on, and must fit where the models do."""
    front = Front.options(  # type: ignore[attr-defined]
        **options,
        ray_actor_options={"num_cpus": 0},
        autoscaling_config=AutoscalingConfig(min_replicas=1, max_replicas=4, target_ongoing_requests=100),
        max_ongoing_requests=2000,
    )
    return front.bind(plan.folders, plan.keys or None, plan.limits)


def _replica(plan: Plan, options: dict[str, Any]) -> Any:
    endpoint = plan.endpoint
    assert endpoint is not None
    replica = Replica.options(  # type: ignore[attr-defined]
        **options,
        ray_actor_options={"num_cpus": endpoint.cpus, "num_gpus": endpoint.gpus},
        autoscaling_config=AutoscalingConfig(
            min_replicas=endpoint.min_replicas,
            initial_replicas=max(1, endpoint.min_replicas),  # what cannot answer is found now
            max_replicas=endpoint.max_replicas,
            target_ongoing_requests=endpoint.max_batch_size,
            upscale_delay_s=5,
            downscale_delay_s=60,
            downscale_to_zero_delay_s=endpoint.idle_s,
            metrics_interval_s=METRICS_EVERY_S if endpoint.min_replicas else WAKES_EVERY_S,
        ),
        # The queue is bounded by the batcher, which answers in JSON and with Retry-After; Serve must let it.
        max_ongoing_requests=2 * (endpoint.max_queued + endpoint.max_batch_size),
        max_surge_percent=100,
    )
    return replica.bind(endpoint, plan.folders[plan.task], plan.keys or None, plan.limits)


def _wait(routes: Mapping[str, str], progress: Progress) -> None:
    """`routes`: by application."""
    deadline = time.monotonic() + READY_WITHIN_S
    while True:
        apps = {task: app for task, app in ray_serve.status().applications.items() if task in routes}
        for task, app in apps.items():
            if app.status in (ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY):
                said = [app.message, *(deployment.message for deployment in app.deployments.values())]
                raise ClusterError(f"{routes[task]} could not be deployed: {details.reason(said)}")
        waiting = [task for task, app in apps.items() if app.status != ApplicationStatus.RUNNING]
        progress.update(LABEL, len(routes) - len(waiting))
        if not waiting:
            return
        if time.monotonic() > deadline:
            raise ClusterError(
                details.too_slow([routes[task] for task in waiting], READY_WITHIN_S, ray.available_resources())
            )
        time.sleep(POLL_S)


def _wait_for_proxy(routes: list[str], url: str) -> None:
    """HAProxy learns of replicas a moment after they run.  Skipped where the proxy is on another machine."""
    deadline = time.monotonic() + READY_WITHIN_S
    for route in routes if head.is_here() else ():
        while not _answers(f"{url}{route}/healthz"):
            if time.monotonic() > deadline:
                raise ClusterError(f"{url}{route} does not answer although its replicas run; see Ray's Serve logs")
            time.sleep(POLL_S)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, trust_env=False).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def _is_running() -> bool:
    try:
        _controller()
    except ValueError:
        return False
    return True


def _details() -> dict[str, Any]:
    """All that the controller knows of itself and its applications."""
    found: dict[str, Any] = ray.get(_controller().get_serve_instance_details.remote())
    return found


def _listens(found: dict[str, Any]) -> tuple[str, int]:
    """Host and port of the one that takes every request."""
    http = found["http_options"]
    return head.remembered(http["host"]), http["port"]


def _controller() -> Any:
    return ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
