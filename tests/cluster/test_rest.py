"""A cluster is idle when nothing runs, waits or is served; one who watches gives way to a newer one."""

import itertools
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from cluster.rest import has_work, wait_until_idle


def test_work_puts_the_end_off() -> None:
    busy = iter([True] * 5)
    began = time.monotonic()
    assert wait_until_idle(0.2, lambda: True, lambda: next(busy, False), 0.05)
    assert time.monotonic() - began >= 0.4


def test_who_is_no_longer_asked_to_watch_ends_nothing() -> None:
    watching = itertools.chain([True] * 3, itertools.repeat(False))
    assert not wait_until_idle(60, lambda: next(watching), lambda: False, 0.01)


def test_a_ray_that_does_not_answer_may_be_busy(capsys: pytest.CaptureFixture[str]) -> None:
    assert has_work("http://127.0.0.1:9")
    assert "http://127.0.0.1:9 does not answer" in capsys.readouterr().out


class Refusing(BaseHTTPRequestHandler):
    """As a dashboard that wants another token."""

    def do_GET(self) -> None:  # the library's name
        self.send_response(403)
        self.end_headers()


def test_a_ray_of_another_token_ends_no_watch(capsys: pytest.CaptureFixture[str]) -> None:
    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever).start()
        assert has_work(f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    assert "Authentication failed" in capsys.readouterr().out
