"""Workers of a Ray on this machine as copies of one process, which has imported what takes each of them seconds.

Ray starts a worker by a script that sets it up.  Ours, `launch`, asks the server here to fork, as
`multiprocessing.forkserver` does; the copy takes over its arguments, environment and open files.  The server knows
nothing of Ray, whose library reads variables, and the cluster's token, when it is loaded: after the copy is made.
"""

import gc
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

FIRST_BYTES = 4096
COPIES_END_WITHIN_S = 2
ACCELERATORS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")


def can_copy() -> bool:
    """Whether copies are made here: on Linux, without a GPU, for a process that has touched one cannot be copied."""
    return sys.platform == "linux" and not any(map(os.path.exists, ACCELERATORS))


@contextmanager
def forkserver(niceness: int = 0) -> Iterator[str | None]:
    """Where the server of copies listens while it runs; None where none are made.

    `niceness`: the least of what copies will be asked to have, for none can be less nice than the server.  Imports that
    give way let Ray start beside them: it gives up where its own processes take more than 15 s.
    """
    if not can_copy():
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="llmray-", dir="/tmp") as folder:
        address = f"{folder}/forkserver"
        with socket.socket(socket.AF_UNIX) as door:
            door.bind(address)
            door.listen()
            server = subprocess.Popen(
                [sys.executable, *_site_options(), __file__, address, str(door.fileno()), *sys.path],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[door.fileno()],
                env=os.environ | {"OMP_NUM_THREADS": "1"},  # what Ray sets for what takes one CPU
                process_group=0,  # Ctrl-C is for the program, which ends this one
            )
            os.setpriority(os.PRIO_PROCESS, server.pid, max(niceness, os.getpriority(os.PRIO_PROCESS, 0)))
        try:
            yield address
        finally:
            _end(server)


def _site_options() -> list[str]:
    """Those of Python's options that Ray gives its workers too."""
    return [option for option, set_ in (("-S", sys.flags.no_site), ("-s", sys.flags.no_user_site)) if set_]


def _end(server: "subprocess.Popen[bytes]") -> None:
    """And the copies that Ray, ended before, had not yet come to know: nobody else would end them."""
    with suppress(psutil.NoSuchProcess):  # it may have died
        stopped = psutil.Process(server.pid)
        stopped.suspend()  # to make no more of them
        _, left = psutil.wait_procs(stopped.children(), timeout=COPIES_END_WITHIN_S)
        for copy in left:
            with suppress(psutil.NoSuchProcess):
                copy.kill()
        psutil.wait_procs(left, timeout=COPIES_END_WITHIN_S)
    server.kill()
    server.communicate()


def _preload(found_at: Sequence[str]) -> None:
    """Import what workers need, from where the program that started this one finds it."""
    own = sys.path[1:]  # without this file's folder
    sys.path[:] = [*found_at, *own]
    import pandas as pd  # noqa: F401

    import llmray.model.load
    import llmray.tasks  # noqa: F401

    sys.path[:] = own
    gc.collect()
    gc.freeze()


def _serve(address: str, door: socket.socket) -> dict[str, Any]:
    """Ends with the program that started it; in a copy, returns what that one was asked to be."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        ready, _, _ = select.select([door, sys.stdin], [], [])
        if sys.stdin in ready:
            shutil.rmtree(Path(address).parent, ignore_errors=True)
            sys.exit()
        with door.accept()[0] as talk:
            if asked := _copied(talk):
                door.close()
                return asked


def _copied(talk: socket.socket) -> dict[str, Any] | None:
    """In a copy of this process, with the open files of whoever asks, what it is to be."""
    start, files, _, _ = socket.recv_fds(talk, FIRST_BYTES, 3)
    with talk.makefile("rb") as rest:
        message = start + rest.read()
    if os.fork() == 0:
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        return dict(json.loads(message))
    for file in files:
        os.close(file)
    with suppress(OSError):  # it may have ended meanwhile
        talk.send(b"1")
    return None


def _become(asked: dict[str, Any]) -> None:
    """What the copy inherited but the interpreter of that command would not have."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setpgid(0, 0)
    os.nice(asked["nice"] - os.nice(0))
    Path("/proc/self/oom_score_adj").write_text(asked["oom_score"])
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    sys.argv = asked["argv"]
    given = asked["env"].get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = [os.path.dirname(sys.argv[0]), *(path for path in given if path and path not in sys.path)]
    sys.modules["numpy"].random.seed()  # Python's own generator does so by itself


if __name__ == "__main__":
    _, listening_at, descriptor, *found_at = sys.argv
    _preload(found_at)
    _become(_serve(listening_at, socket.socket(fileno=int(descriptor))))
    runpy.run_path(sys.argv[0], run_name="__main__")
