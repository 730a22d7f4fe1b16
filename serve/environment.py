"""Judges what a `serve` section asks of this machine before anything is started: routes, keys, address and port.

It does not know Ray.
"""

import errno
import random
import socket
from importlib.util import find_spec
from ipaddress import ip_address

from llmray.job.errors import ClusterError, JobError
from llmray.job.schema import Limits, Serve
from llmray.store import place
from serve.details import EVERY_INTERFACE
from serve.shapes import OWN_PATHS, ROUTES

PORTS_TRIED = 100
BLOCKS = range(20_000, 32_000, 100)


def prepare_environment(serve: Serve, output: str, *, joins: bool = False) -> Serve:
    """The same section with the keys that hold and a port that is free, or any where it `joins` a cluster elsewhere.

    Raises `JobError` for a task without a route, for two endpoints on one and for an address that is open without keys,
    `ClusterError` for a port that is taken.
    """
    _judge_routes(serve)
    _judge_storage(serve.limits)
    serve = serve.model_copy(update={"keys": _keys(serve, output)})
    judge_host(serve.host, serve.keys)
    return serve if joins else serve.model_copy(update={"port": settle_port(serve)})


def keys_file(serve: Serve, output: str) -> str:
    """Where a job's API keys are kept."""
    return serve.keys or place.join(output, "keys.json")


def _keys(serve: Serve, output: str) -> str | None:
    path = keys_file(serve, output)
    if place.exists(path):
        return path
    if serve.keys:
        raise JobError(
            f"serve.keys: {path} does not exist; make a first key: llmray keys create NAME serve.keys={path}"
        )
    return None


def judge_host(host: str, keys: str | None) -> None:
    """Raise `JobError` where others could ask the endpoints without a key."""
    if keys is None and not is_loopback(host):
        raise JobError(
            f"serve.host: {host} can be reached from other machines, and there is no API key: make one with"
            " `llmray keys create NAME JOB.yaml` (the same job file and output), or keep to serve.host=127.0.0.1"
        )


def judge_machines(host: str, machines: int) -> None:
    """Raise `JobError` for an address that replicas on other machines do not have: each listens there itself."""
    if machines > 1 and host not in EVERY_INTERFACE:
        raise JobError(
            f"serve.host: {host} is an address of one machine, and the cluster has {machines}, on all of which replicas"
            " may run and must be reached; use serve.host=0.0.0.0, which needs API keys (`llmray keys create`)"
        )


def is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def settle_port(serve: Serve) -> int:
    """The port itself, or with `if_port_taken: next` the first free one from there on."""
    if is_free(serve.host, serve.port):
        return serve.port
    if serve.if_port_taken == "fail":
        raise ClusterError(
            f"serve.port: {serve.port} on {serve.host} is taken by another program;"
            " choose another (serve.port=…) or let llmray choose (serve.if_port_taken=next)"
        )
    last = min(serve.port + PORTS_TRIED, 65535)
    for port in range(serve.port + 1, last + 1):
        if is_free(serve.host, port):
            return port
    raise ClusterError(
        f"serve.port: {serve.port} to {last} on {serve.host} are all taken; choose another (serve.port=…)"
    )


def is_free(host: str, port: int) -> bool:
    """Whether this machine can listen there.  Raises `ClusterError` where the address is not this machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except PermissionError:
            raise ClusterError(f"serve.port: {port} needs root here; choose one above 1023 (serve.port=…)") from None
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise ClusterError(f"serve.host: cannot listen on {host!r}: {error}; 127.0.0.1 always works") from None
    return True


def free_block(apart_from: int | None = None) -> tuple[int, int]:
    """First and last port of a block of loopback where nothing listens, apart from Ray's workers and the system's own.

    Each Serve has a block of its own: a proxy must never take another Serve's replica for its dead one.
    """
    first = [start for start in BLOCKS if apart_from not in range(start, start + BLOCKS.step)]
    random.SystemRandom().shuffle(first)
    for start in first:
        if all(is_free("127.0.0.1", port) for port in range(start, start + BLOCKS.step)):
            return start, start + BLOCKS.step - 1
    raise ClusterError(f"no {BLOCKS.step} ports in a row are free between {BLOCKS.start} and {BLOCKS.stop}")


def _judge_storage(limits: Limits) -> None:
    if limits.storage != "memory" and find_spec("redis") is None:
        raise JobError(
            f"serve.limits.storage: {limits.storage} needs the package redis: pip install 'llmray[redis]', on every"
            " machine that serves"
        )


def _judge_routes(serve: Serve) -> None:
    for endpoint in serve.endpoints:
        if endpoint.task.name not in ROUTES:
            raise JobError(
                f"serve.endpoints: {endpoint.model} learned {endpoint.task.name}, which is only pretraining and answers"
                f" no one; train it further for one of {', '.join(ROUTES)}"
            )
        if endpoint.name in OWN_PATHS:
            raise JobError(f"serve.endpoints: {endpoint.model}: {endpoint.name} is a page of every route; rename it")
    for task in dict.fromkeys(endpoint.task.name for endpoint in serve.endpoints):
        alike = [endpoint for endpoint in serve.endpoints if endpoint.task.name == task]
        if len(alike) > 1 and len({endpoint.name for endpoint in alike} - {None}) < len(alike):
            models = ", ".join(endpoint.model for endpoint in alike)
            raise JobError(
                f"serve.endpoints: {models} all answer {ROUTES[task]}; keep one of them, or give each a name of its own"
                f" ({ROUTES[task]}/NAME)"
            )
