"""Reads what Ray Serve tells of itself: addresses, states, and why a replica did not start.

It does not know how to ask for it; plain values only.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from llmray.job.results import EndpointStatus

EVERY_INTERFACE = ("0.0.0.0", "::")
FIGURES = {"requests_per_s": "rate", "response_ms": "ttime", "failed": "hrsp_5xx"}
"""Our names of what HAProxy counts."""


def base_url(host: str, port: int, head_address: str) -> str:
    """URL of the proxy; an address that means every interface is named by the head's own."""
    host = head_address if host in EVERY_INTERFACE else host
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def described(app: Mapping[str, Any]) -> Mapping[str, Any]:
    """The `user_config` of an application among the controller's instance details."""
    found: Mapping[str, Any] = _deployment(app).get("deployment_config", {}).get("user_config") or {}
    return found


def _deployment(app: Mapping[str, Any]) -> Mapping[str, Any]:
    return next(iter(app["deployments"].values()), None) or {}


def endpoint(url: str, app: Mapping[str, Any], figures: Mapping[str, Mapping[str, str]]) -> EndpointStatus:
    """One application of the controller's instance details, with HAProxy's figures by application."""
    said, route = described(app), app["route_prefix"] or ""
    return EndpointStatus(
        route=route,
        task=said.get("task", app["name"]),
        url=url + route,
        model=said.get("model", ""),
        status=str(getattr(app["status"], "value", app["status"])),
        keys=said.get("keys", ""),
        replicas=sum(replica["state"] == "RUNNING" for replica in _deployment(app).get("replicas", [])),
        **_live(figures.get(app["name"], {})),
    )


def _live(figures: Mapping[str, str]) -> dict[str, Any]:
    return {ours: figures[theirs] or 0 for ours, theirs in FIGURES.items() if theirs in figures}


def reason(messages: Sequence[str]) -> str:
    """What went wrong: the exception's line of a replica's traceback, or Serve's own words where there is none."""
    lines = [line.strip() for text in messages if "Traceback" in text for line in text.splitlines()]
    errors = [line for line in lines if "Error" in line.split(": ")[0].split(" ")[0]]
    said = errors or [text for text in messages if text] or ["Ray Serve gave no reason; see its logs"]
    return said[-1].removeprefix("llmray.job.errors.")


def alert(message: str) -> str:
    """Why HAProxy or Serve did not start: HAProxy's first alert, else the last line."""
    lines = [line.strip() for line in message.splitlines() if line.strip()] or ["no reason was given"]
    return next((line for line in lines if line.startswith("[ALERT]")), lines[-1])


def too_slow(routes: Sequence[str], seconds: float, free: Mapping[str, float]) -> str:
    """Why endpoints may still be waiting: most often there are not enough CPUs or GPUs."""
    return (
        f"{', '.join(routes)} did not get ready within {seconds:g} s; the cluster has"
        f" {free.get('CPU', 0):g} CPUs and {free.get('GPU', 0):g} GPUs free: lower cpus, gpus or min_replicas of"
        " serve.endpoints, or add machines"
    )
