"""Joins a Ray cluster or starts one on this machine.  It does not know what will run there."""

import gc
import logging
import os
import random
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import ray
import ray.data
from ray._private import ray_constants, services
from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available

from cluster import launch
from cluster.forkserver import forkserver
from cluster.network import speak_over_ray_s
from llmray.job.errors import ClusterError
from llmray.job.training import Scale
from llmray.training.stopping import interrupts

LOOPBACK = "127.0.0.1"
ANSWER_WITHIN_S = 5
DASHBOARDS = range(32_000, 32_768)
"""Ports that no worker or replica is given, nor whoever asks the system for any."""
ON_LOOPBACK_ALONE: Mapping[str, Any] = {"ENABLE_RAY_CLUSTER": False}
"""Ray takes loopback for the machine's outside address, and then opens a dozen ports there, some without asking for its
token; but not where it knows that no other machine will join, as it does on macOS."""
NICE = 15
"""How far what gives way stands behind other programs: Ray's own default."""
OOM_RETRIES = 2
"""Times that a task is tried again after it was ended for lack of memory; Ray itself would never stop."""
READERS, READERS_END_WITHIN_S = "iter_threaded", 2
"""What Ray Data calls its reading threads, and the time that each is given; they look up every 0.1 s."""


def logical_cpus() -> int:
    """CPUs that a Ray started here offers: twice the cores, four at least.

    Data tasks mostly wait for the trainer that they feed, and two training workers must leave room for them.
    """
    return max(4, 2 * (os.cpu_count() or 1))


@contextmanager
def session(scale: Scale, cpus: int | None = None, *, nice: bool = True) -> Iterator[str]:
    """The Ray cluster that `scale.address` names, or one of our own on loopback that ends with the context.

    `cpus`: how many a Ray started here offers; `logical_cpus()` of them unless told.  `nice`: what runs there
    gives way to other programs; else it has their priority, as what is waited for should.

    Inside another session it is that one.  Raises `ClusterError` when the address cannot be reached.
    """
    if ray.is_initialized():
        yield ray.get_runtime_context().gcs_address
        return
    with ExitStack() as held:
        with _signals_kept():
            if scale.address:
                _join(scale.address)
            else:
                niceness = NICE if nice else 0
                _start(cpus or logical_cpus(), niceness, held.enter_context(forkserver(niceness)))
        _quieten()
        try:
            yield ray.get_runtime_context().gcs_address
        finally:
            with interrupts(patient=True) as asked:  # half ended, Ray ends a process that lets go of what was its
                _end_readers()
                ray.shutdown()
            if asked.is_set():
                raise KeyboardInterrupt


def _end_readers() -> None:
    """Readers of Ray Data that were left early hold one another until Python looks for such rings; one that wakes after
    Ray's end asks it something, upon which Ray ends the whole process."""
    gc.collect()
    for thread in threading.enumerate():
        if thread.name == READERS:
            thread.join(READERS_END_WITHIN_S)


def _start(cpus: int, niceness: int, copies_at: str | None) -> None:
    """`niceness`: of its workers; `copies_at`: where to ask for copies that stand in for its workers."""
    port = _free_port()
    told, constants = {"RAY_API_SERVER_ADDRESS": f"http://{LOOPBACK}:{port}"}, {**ON_LOOPBACK_ALONE}
    if copies_at:
        told[launch.SERVER] = copies_at
        constants["SETUP_WORKER_FILENAME"] = launch.__file__
    with _constants(constants), _told_to_workers(**told):
        ray.init(
            address="local",  # another Ray on this machine is not ours
            num_cpus=cpus,
            _node_ip_address=LOOPBACK,
            include_dashboard=True,  # Ray Train's state and ASHA's clean-up need it
            dashboard_host=LOOPBACK,
            dashboard_port=port,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _system_config={
                "task_oom_retries": OOM_RETRIES,
                "worker_niceness": niceness,
                "prestart_worker_first_driver": copies_at is None,  # one a CPU, which copies need not
            },
        )


@contextmanager
def _constants(values: Mapping[str, Any]) -> Iterator[None]:
    """Ray's own constants while it starts, for what it cannot be told in another way."""
    own = vars(ray_constants)
    before = {name: own[name] for name in values}
    own.update(values)
    try:
        yield
    finally:
        own.update(before)


@contextmanager
def _told_to_workers(**variables: str) -> Iterator[None]:
    """Workers of a Ray that starts now inherit these: else Ray Train asks for its state wherever `ray start` was used
    last, be it dead, and waits 12 s at the end of every training."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _join(address: str) -> None:
    try:
        found = address == "auto"
        if found:  # wherever `ray start` was used last, be it dead
            address = services.get_ray_address_from_environment(address, None)
        _require_answer(address)
        env = {"worker_process_setup_hook": speak_over_ray_s}
        if found or address.startswith(LOOPBACK):  # it is this user's, and asks for the token that Ray made for that
            logging.getLogger("ray").setLevel(logging.ERROR)  # as `ray.init` will; or it warns of the token
            maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
        with _constants(ON_LOOPBACK_ALONE if _is_on_loopback_alone(address) else {}):
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, runtime_env=env)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ClusterError(
            f"{address}: no Ray cluster can be reached there ({str(error).splitlines()[0]}); check that it runs"
            " (`ray status`), its address, and its token"
        ) from error


def _is_on_loopback_alone(address: str) -> bool:
    """Whether it is a Ray that no other machine can have joined, as those that are started here."""
    host, _, port = address.rpartition(":")
    if host != LOOPBACK:
        return False
    with suppress(OSError):
        socket.create_connection((services.get_node_ip_address(), int(port)), ANSWER_WITHIN_S).close()
        return False
    return True


def _require_answer(address: str) -> None:
    """Ray itself would try for minutes, and then end the whole process."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdigit()):
        return
    try:
        socket.create_connection((host, int(port)), ANSWER_WITHIN_S).close()
    except OSError as error:
        raise ClusterError(
            f"{address}: nothing answers there ({error.strerror or error}); check that the cluster runs (`ray status`)"
            " and that this machine may reach it"
        ) from error


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray takes SIGTERM over; it is for whoever runs the work to say what an interruption means."""
    numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    handlers = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def _quieten() -> None:
    """Our own progress speaks; Ray Data's would drown it."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.enable_operator_progress_bars = False
    context.print_on_execution_start = False
    for name, level in {"ray.data": logging.WARNING, "ray.data._internal.progress": logging.ERROR}.items():
        logging.getLogger(name).setLevel(level)


def _free_port() -> int:
    """One that stays free until the dashboard takes it, some seconds later."""
    for port in random.SystemRandom().sample(DASHBOARDS, len(DASHBOARDS)):
        with socket.socket() as probe, suppress(OSError):
            probe.bind((LOOPBACK, port))
            return port
    raise ClusterError(f"no port is free between {DASHBOARDS.start} and {DASHBOARDS.stop}, where Ray's dashboard goes")
