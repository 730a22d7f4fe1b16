"""The page's server: ports, closing, and that nothing of it reaches outside this machine."""

import socket
import subprocess
import sys

import httpx
import pytest

from llmray.job.errors import ClusterError, JobError
from ui.app import launch


@pytest.fixture
def taken_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_it_shows_at_a_free_port_and_frees_it(endpoints, monkeypatch):
    reached = set()
    connect = socket.socket.connect

    def noted(self, address):
        reached.add(address[0])
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", noted)
    url, close = launch(endpoints.url)
    other, close_other = launch(endpoints.url)
    try:
        page = httpx.get(url)
        assert page.status_code == 200
        assert "llmray" in page.text
        assert other != url
    finally:
        close()
        close_other()
    assert reached <= {"127.0.0.1"}
    again, close_again = launch(endpoints.url, port=httpx.URL(url).port)
    close_again()
    assert again == url


def test_a_taken_port_is_named_with_the_way_out(taken_port):
    with pytest.raises(ClusterError, match=rf"port {taken_port} of 127.0.0.1 is taken.*--port"):
        launch("http://127.0.0.1:1", port=taken_port)


@pytest.mark.parametrize("host", ["203.0.113.7", "no-such-host.invalid"])
def test_an_address_of_another_machine(host):
    with pytest.raises(ClusterError, match="is no address of this machine"):
        launch("http://127.0.0.1:1", host=host)


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_number_that_is_no_port(port):
    with pytest.raises(JobError, match=f"port: found {port}; allowed: 1 to 65535"):
        launch("http://127.0.0.1:1", port=port)


def test_it_brings_no_models_along():
    check = "import sys, ui.app; sys.exit(', '.join({'ray', 'torch', 'transformers'} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
