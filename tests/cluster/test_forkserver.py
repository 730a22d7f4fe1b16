"""Copies that stand in for Python: as it would be, but for what is imported already."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster import forkserver as module
from cluster.forkserver import forkserver

STATE = """
import json, os, signal, sys
print(json.dumps({
    "argv": sys.argv, "path": sys.path, "environment": dict(os.environ), "cwd": os.getcwd(), "input": sys.stdin.read(),
    "file": __file__, "name": __name__, "main": sys.modules["__main__"].__file__, "executable": sys.executable,
    "nice": os.nice(0), "oom_score": open("/proc/self/oom_score_adj").read(), "flags": list(sys.flags),
    "signals": [str(signal.getsignal(n)) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)],
    "files": sorted(os.listdir("/proc/self/fd")),
}))
print("to stderr", file=sys.stderr)
"""
LINUX_WITHOUT_GPU = sys.platform == "linux" and not any(map(os.path.exists, module.ACCELERATORS))
pytestmark = pytest.mark.skipif(not LINUX_WITHOUT_GPU, reason="copies are made on Linux, where there is no GPU")


@pytest.fixture(scope="module")
def python() -> Iterator[str]:
    with forkserver() as command:
        yield command


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a script as Ray does: by a shell that replaces itself, here less eager than the server is."""

    def run(python: str, code: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "script.py").write_text(code)
        words = f"exec nice -n 3 {python} {tmp_path}/script.py one 'two words'"
        added = {"ADDED": "ü \udcff", "PYTHONPATH": str(tmp_path)}
        return subprocess.run(
            ["bash", "-c", words], input="given", capture_output=True, text=True, cwd=tmp_path, env=os.environ | added,
            start_new_session=True, timeout=60, check=False,
        )  # fmt: skip

    return run


def test_a_copy_is_as_python_would_be(python: str, run: Callable[..., Any]) -> None:
    copy, plain = run(python, STATE), run(shlex.quote(sys.executable), STATE)
    assert copy.stderr == plain.stderr == "to stderr\n"
    assert json.loads(copy.stdout) == json.loads(plain.stdout)


def test_a_copy_has_imported_what_takes_long_but_not_ray(python: str, run: Callable[..., Any]) -> None:
    code = 'import sys; print([name in sys.modules for name in ("torch", "transformers", "ray")])'
    assert run(python, code).stdout == "[True, True, False]\n"


def test_a_copy_leads_a_group_in_the_session_of_the_program_as_workers_do(python: str, run: Callable[..., Any]) -> None:
    code = "import os; print(os.getsid(0), os.getpgid(0) == os.getpid())"
    assert run(python, code).stdout == f"{os.getsid(0)} True\n"


def test_copies_draw_other_numbers(python: str, run: Callable[..., Any]) -> None:
    code = "import random, numpy; print(random.random(), numpy.random.rand())"
    first, second = (run(python, code).stdout.split() for _ in range(2))
    assert not set(first) & set(second)
    assert len(set(first)) == 2


def test_where_the_server_died_python_starts_instead(run: Callable[..., Any]) -> None:
    with forkserver() as command:
        (server,) = (child for child in psutil.Process().children() if shlex.split(command)[-1] in child.cmdline())
        server.kill()
        server.wait()
        copy = run(command, STATE)
    plain = run(shlex.quote(sys.executable), STATE)
    assert json.loads(copy.stdout) == json.loads(plain.stdout)


def test_a_copy_that_goes_on_ends_with_the_server(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("import os, time; print(os.getpid(), flush=True); time.sleep(600)")
    with forkserver() as command:
        started = ["bash", "-c", f"exec {command} {tmp_path}/script.py"]
        with subprocess.Popen(started, stdout=subprocess.PIPE) as launched:
            assert launched.stdout
            copy = psutil.Process(int(launched.stdout.readline()))
        assert copy.is_running()
    assert not copy.is_running()


def test_one_that_asks_and_dies_leaves_the_server_well(python: str, run: Callable[..., Any]) -> None:
    for said in (b"", b'{"argv": ["half'):
        with socket.socket(socket.AF_UNIX) as talk:
            talk.connect(shlex.split(python)[-1])
            talk.sendall(said)
    assert run(python, "import sys; print('torch' in sys.modules)").stdout == "True\n"


def test_the_server_ends_with_a_program_that_was_killed(tmp_path: Path) -> None:
    code = (
        "from cluster.forkserver import forkserver\nwith forkserver() as command:\n print(command, flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        assert program.stdout
        address = shlex.split(program.stdout.readline().decode())[-1]
        (server,) = psutil.Process(program.pid).children()
        program.send_signal(signal.SIGKILL)
    ends = time.monotonic() + 30
    while server.is_running() and server.status() != psutil.STATUS_ZOMBIE:  # `wait` would wait for it to be reaped
        assert time.monotonic() < ends
        time.sleep(0.02)
    assert not os.path.exists(os.path.dirname(address))


def test_nothing_is_copied_where_there_is_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ACCELERATORS", (str(tmp_path),))
    monkeypatch.setattr(sys, "executable", "/a path/python")
    with forkserver() as command:
        assert command == "'/a path/python'"
