"""Copies that stand in for workers of Ray: as those would be, but for what is imported already."""

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
import ray._private.workers

from cluster import forkserver as module
from cluster import launch
from cluster.forkserver import can_copy, forkserver

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
pytestmark = pytest.mark.skipif(not can_copy(), reason="copies are made on Linux, where there is no GPU")


SETUP = Path(ray._private.workers.__file__).with_name("setup_worker.py")
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with forkserver() as address:
        assert address
        yield address


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a worker's script as Ray does, here less eager than the server is; without a server, set up by Ray's own."""
    (tmp_path / SETUP.name).symlink_to(SETUP)

    def run(server: str | None, code: str, **context: Any) -> subprocess.CompletedProcess[str]:
        (tmp_path / "script.py").write_text(code)
        words = [sys.executable, launch.__file__ if server else SETUP, tmp_path / "script.py", "one", "two words"]
        if server is None and context.get("py_executable", sys.executable) == sys.executable:
            context["py_executable"] = shlex.quote(sys.executable)
        given = [f"--serialized-runtime-env-context={json.dumps(context)}"] if context else []
        added = {"ADDED": "ü \udcff", "PYTHONPATH": str(tmp_path)} | ({launch.SERVER: server} if server else {})
        return subprocess.run(
            ["nice", "-n", "3", *words, "--language=PYTHON", *given], input="given", capture_output=True, text=True,
            cwd=tmp_path, env=os.environ | added, start_new_session=True, timeout=60, check=False,
        )  # fmt: skip

    return run


@pytest.mark.parametrize(
    "context",
    [
        {},
        {"py_executable": sys.executable, "command_prefix": [], "java_jars": [], "override_worker_entrypoint": None},
        {"env_vars": {"GIVEN": "two words", "LATER": "${GIVEN}, ${ADDED}${UNSET}", "ADDED": "'other'"}},
    ],
)
def test_a_copy_is_as_the_worker_would_be(server: str, run: Run, context: dict[str, Any]) -> None:
    copy, plain = run(server, STATE, **context), run(None, STATE, **context)
    assert copy.stderr == plain.stderr == "to stderr\n"
    assert _own(copy) == _own(plain)


def _own(state: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """Ray starts Python by a shell, which leaves its own variables; one names the server."""
    found = json.loads(state.stdout)
    for name in ("_", "SHLVL", "PWD", "OLDPWD", launch.SERVER):
        found["environment"].pop(name, None)
    return dict(found)


def test_a_copy_has_imported_what_takes_long_but_not_ray(server: str, run: Run) -> None:
    code = 'import sys; print([name in sys.modules for name in ("torch", "transformers", "ray")])'
    assert run(server, code).stdout == "[True, True, False]\n"


@pytest.mark.parametrize(
    "context",
    [{"command_prefix": ["cd", "/", "&&"]}, {"py_executable": f"env OTHER=1 {shlex.quote(sys.executable)}"}],
    ids=["another folder", "another Python"],
)
def test_what_a_copy_cannot_have_is_left_to_ray(server: str, run: Run, context: dict[str, Any]) -> None:
    code = 'import os, sys; print(os.getcwd(), os.environ.get("OTHER"), "torch" in sys.modules)'
    plain = run(None, code, **context).stdout
    assert plain.endswith(" False\n")
    assert run(server, code, **context).stdout == plain


def test_a_copy_leads_a_group_in_the_session_of_the_program_as_workers_do(server: str, run: Run) -> None:
    code = "import os; print(os.getsid(0), os.getpgid(0) == os.getpid())"
    assert run(server, code).stdout == f"{os.getsid(0)} True\n"


def test_copies_draw_other_numbers(server: str, run: Run) -> None:
    code = "import random, numpy; print(random.random(), numpy.random.rand())"
    first, second = (run(server, code).stdout.split() for _ in range(2))
    assert not set(first) & set(second)
    assert len(set(first)) == 2


def listening_at(address: str | None) -> psutil.Process:
    (process,) = (child for child in psutil.Process().children() if address in child.cmdline())
    return process


def test_where_the_server_died_python_starts_instead(run: Run) -> None:
    with forkserver() as address:
        process = listening_at(address)
        process.kill()
        process.wait()
        instead = run(address, STATE, env_vars={"ADDED": "${ADDED} more"})
    assert _own(instead) == _own(run(None, STATE, env_vars={"ADDED": "${ADDED} more"}))


def test_python_starts_from_a_path_with_spaces_where_it_is_no_copy(tmp_path: Path) -> None:
    """Ray's own script, to which it is left, hands that path to a shell."""
    (tmp_path / "my venv").symlink_to(sys.prefix)
    (tmp_path / SETUP.name).symlink_to(SETUP)
    (tmp_path / "script.py").write_text("import sys; print(sys.executable)")
    python = tmp_path / "my venv" / "bin" / "python"
    out = subprocess.run(
        [python, launch.__file__, tmp_path / "script.py", "--language=PYTHON"],
        env=os.environ | {launch.SERVER: str(tmp_path / "nobody")}, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert out.stdout == f"{python}\n", out.stderr


def test_where_the_folder_is_gone_python_starts_instead(server: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("import sys; print('torch' in sys.modules)")
    (tmp_path / SETUP.name).symlink_to(SETUP)
    words = shlex.join([sys.executable, launch.__file__, f"{tmp_path}/script.py", "--language=PYTHON"])
    gone = f"mkdir {tmp_path}/gone && cd {tmp_path}/gone && rmdir {tmp_path}/gone && exec {words}"
    out = subprocess.run(
        ["bash", "-c", gone], env=os.environ | {launch.SERVER: server}, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert out.stdout == "False\n", out.stderr


def test_a_copy_that_goes_on_ends_with_the_server(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("import os, time; print(os.getpid(), flush=True); time.sleep(600)")
    with forkserver() as address:
        assert address
        started = [sys.executable, launch.__file__, str(tmp_path / "script.py"), "--language=PYTHON"]
        own = os.environ | {launch.SERVER: address}
        with subprocess.Popen(started, stdout=subprocess.PIPE, env=own) as launched:
            assert launched.stdout
            copy = psutil.Process(int(launched.stdout.readline()))
        assert copy.is_running()
    assert not copy.is_running()


def test_the_server_gives_way_as_its_copies_will() -> None:
    with forkserver(niceness=15) as address:
        process = listening_at(address)
        assert process.nice() == max(15, psutil.Process().nice())


def test_one_that_asks_and_dies_leaves_the_server_well(server: str, run: Run) -> None:
    for said in (b"", b'{"argv": ["half'):
        with socket.socket(socket.AF_UNIX) as talk:
            talk.connect(server)
            talk.sendall(said)
    assert run(server, "import sys; print('torch' in sys.modules)").stdout == "True\n"


def test_the_server_ends_with_a_program_that_was_killed(tmp_path: Path) -> None:
    code = (
        "from cluster.forkserver import forkserver\nwith forkserver() as address:\n print(address, flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        assert program.stdout
        address = Path(program.stdout.readline().decode().strip())
        (server,) = psutil.Process(program.pid).children()
        program.send_signal(signal.SIGKILL)
    ends = time.monotonic() + 30
    while server.is_running() and server.status() != psutil.STATUS_ZOMBIE:  # `wait` would wait for it to be reaped
        assert time.monotonic() < ends
        time.sleep(0.02)
    assert not address.parent.exists()


def test_nothing_is_copied_where_there_is_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ACCELERATORS", (str(tmp_path),))
    with forkserver() as address:
        assert address is None
