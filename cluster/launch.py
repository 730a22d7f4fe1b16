"""Stands where a worker of Ray would start Python: has `forkserver` copy itself there instead.

It imports next to nothing, and where no server answers it becomes the interpreter that it stands for.
"""

import json
import os
import socket
import sys
from pathlib import Path

OOM_SCORE = Path("/proc/self/oom_score_adj")


def _asked(server: str, argv: list[str]) -> bool:
    """Whether the server has made a copy of itself, with all that this process was given."""
    own = {"env": dict(os.environ), "cwd": os.getcwd(), "nice": os.nice(0), "oom_score": OOM_SCORE.read_text()}
    message = json.dumps(own | {"argv": argv}).encode()
    try:
        with socket.socket(socket.AF_UNIX) as talk:
            talk.connect(server)
            sent = socket.send_fds(talk, [message], [0, 1, 2])
            talk.sendall(message[sent:])
            talk.shutdown(socket.SHUT_WR)
            return bool(talk.recv(1))
    except OSError:
        return False


if __name__ == "__main__":
    _, server, *argv = sys.argv
    if not _asked(server, argv):
        os.execv(sys.executable, [sys.executable, *argv])
