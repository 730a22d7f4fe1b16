"""HAProxy opens nothing but its one port, and fails in JSON."""

import json
import os
import re
import socket
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from http.client import HTTPResponse
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import httpx
import pytest
from ray.serve._private.constants import HTTP_PROXY_TIMEOUT, PROXY_HEALTH_CHECK_UNHEALTHY_THRESHOLD
from ray.serve._private.haproxy_templates import HAPROXY_CONFIG_TEMPLATE

from llmray.job.errors import ClusterError
from serve import haproxy
from serve.environment import free_block
from serve.shapes import SHED, failure

CONFIG = """global
    stats socket {folder}/admin.sock mode 666 level admin expose-fd listeners
defaults
    mode http
    timeout connect 5s
    timeout client 5s
    timeout server 5s
    errorfile 503 {folder}/500.http
frontend prometheus
    bind :9101
    mode http
frontend http_frontend
    bind *:18999
    use_backend http-qa if {{ path_beg /qa }}
    use_backend http-qa-two if {{ path_beg /other }}
    default_backend default_backend
backend default_backend
    http-request return status 404 content-type text/plain lf-string "Path \\'%[path]\\' not found."
backend http-qa
    server one 127.0.0.1:{replica}
backend http-qa-two
    server one 127.0.0.1:{replica}
listen stats
  bind *:8404
  stats enable
"""
FULL_FOR_S = 2.0
"""Longer than a replica may say, for slow machines."""


def launched(folder: Path, port: int, *options: str, replica: int = 1) -> subprocess.Popen[str]:
    """The real HAProxy, which the launcher starts with what Ray writes."""
    config = folder / "haproxy.cfg"
    config.write_text(CONFIG.format(folder=folder, replica=replica))
    ours = haproxy.settings(folder, (1, 3), haproxy.bind("127.0.0.1", port))
    command = [ours["RAY_SERVE_HAPROXY_BINARY_PATH"], *options, "-f", str(config)]
    return subprocess.Popen(command, env=os.environ | ours, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def edited(tmp_path: Path) -> str:
    """The configuration after the launcher has let HAProxy check it."""
    with launched(tmp_path, 18998, "-c") as checked:
        _, said = checked.communicate()
    assert checked.returncode == 0, said
    return (tmp_path / "haproxy.cfg").read_text()


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Short, as a socket's path must be."""
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


class Full(BaseHTTPRequestHandler):
    """A replica that has no room, and says for how long."""

    asked: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.asked.append(f"{self.command} {self.path}")
        self.send_response(503)
        self.send_header(SHED, f"{1000 * FULL_FOR_S:.0f}")
        self.send_header("content-length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        self.asked.append(f"{self.command} {self.path}")
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()


@pytest.fixture
def full() -> Iterator[HTTPServer]:
    Full.asked.clear()
    with HTTPServer(("127.0.0.1", 0), Full) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def port(tmp_path: Path, full: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Where HAProxy listens, before a replica that is full."""
    monkeypatch.setattr(haproxy, "ARRIVAL_S", 1)
    monkeypatch.setattr(
        haproxy, "SHED_UNTIL", [line.replace(":100 ", f":{1000 * FULL_FOR_S:.0f} ") for line in haproxy.SHED_UNTIL]
    )
    chosen = free_block()[0]
    with launched(tmp_path, chosen, replica=full.server_port) as running:
        while running.poll() is None and not listens(chosen):
            time.sleep(0.05)
        yield chosen
        running.kill()


def listens(port: int) -> bool:
    with socket.socket() as asked:
        return asked.connect_ex(("127.0.0.1", port)) == 0


def test_statistics_metrics_and_admin_are_unix_sockets_of_this_user(edited: str, tmp_path: Path) -> None:
    binds = re.findall(r"bind (.*)", edited)
    assert binds == [
        f"unix@{tmp_path}/prometheus.sock mode 600",
        "127.0.0.1:18998",
        f"unix@{tmp_path}/stats.sock mode 600",
    ]
    assert "mode 666" not in edited


def test_headers_that_steer_ray_serve_are_not_let_in(edited: str) -> None:
    dropped = re.findall(r"http-request del-header (\S+)", edited.partition("backend default_backend")[0])
    assert {"x-request-timeout-seconds", "x-request-id", "x-session-id"} < set(dropped)


def test_errors_are_json(edited: str, tmp_path: Path) -> None:
    assert "status 404 content-type application/json" in edited
    head, _, body = (tmp_path / "500.http").read_bytes().decode().partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 503")
    assert "Retry-After: 1" in head
    assert f"Content-Length: {len(body)}" in head
    assert '"error_type": "overloaded"' in body


@pytest.mark.parametrize(
    ("sent", "status", "said"),
    [
        (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n{", 408, "did not arrive within 1 s"),
        (b"GET /nowhere HTTP/1.1\r\nhost: a\r\n\r\n", 404, "nothing is served at /nowhere"),
    ],
)
def test_what_reaches_no_route_is_told_why_in_json(port: int, sent: bytes, status: int, said: str) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as asked:
        asked.sendall(sent)
        found = HTTPResponse(asked)
        found.begin()
        body = json.loads(found.read())
    assert (found.status, found.headers.get_content_type()) == (status, "application/json")
    assert said in body["error"]
    assert "error_type" not in body


def test_what_a_full_replica_would_refuse_is_refused_before_it_for_the_time_it_says(port: int) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as http:
        first, second = http.post("/qa", content="a"), http.post("/qa", content="b")
        http.get("/qa")
        http.post("/qa", content="x" * haproxy.HELD_BYTES)
        http.post("/other", content="c")
        time.sleep(FULL_FOR_S)
        http.post("/qa", content="d")
    assert Full.asked == ["POST /qa", "GET /qa", "POST /qa", "POST /other", "POST /qa"]
    assert SHED not in first.headers
    assert (second.status_code, second.headers["retry-after"]) == (503, "1")
    assert second.json() == failure(second.json()["error"], 503)


def test_the_installed_ray_still_writes_what_the_launcher_edits() -> None:
    for written in (
        "frontend http_frontend\n    bind {{",
        "frontend prometheus\n    bind :",
        "listen stats\n  bind *:",
        "mode 666 level admin",
        "status 404",
        "\nbackend {{ backend.name",
    ):
        assert written in HAPROXY_CONFIG_TEMPLATE


def test_a_folder_that_others_can_open_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(haproxy, "FOLDERS", str(tmp_path))
    made = haproxy.private_folder()
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    made.chmod(0o755)
    with pytest.raises(ClusterError, match="only you can open"):
        haproxy.private_folder()


def test_only_one_serve_starts_at_a_time(tmp_path: Path) -> None:
    second = threading.Event()

    def start() -> None:
        with haproxy.starting_alone(tmp_path):
            second.set()

    with haproxy.starting_alone(tmp_path):
        thread = threading.Thread(target=start)
        thread.start()
        assert not second.wait(0.1)
    assert second.wait(10)
    thread.join()


def test_a_slow_proxy_is_not_replaced_while_the_start_still_waits_for_it() -> None:
    ready_s = float(haproxy.base_settings()["RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S"])
    assert PROXY_HEALTH_CHECK_UNHEALTHY_THRESHOLD * ready_s >= HTTP_PROXY_TIMEOUT
