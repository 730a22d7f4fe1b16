"""Stands in the place of Ray's `setup_worker.py`: has `forkserver` copy itself where that would start Python anew.

It imports next to nothing.  Where no server answers, or a worker is to be more than Python with other variables (in an
environment or a folder of its own, say), it becomes Ray's own.  It must not have that one's name: Ray leaves it out for
workers that have nothing to set up.
"""

import json
import os
import re
import shlex
import socket
import sys
from pathlib import Path
from typing import Any

SERVER = "LLMRAY_FORKSERVER"
"""The variable that says where the server listens."""
OOM_SCORE = Path("/proc/self/oom_score_adj")
CONTEXT, LANGUAGE = "--serialized-runtime-env-context=", "--language="
UNSET = re.compile(r"\$\{[A-Z0-9_]+\}")


def _context(words: list[str]) -> dict[str, Any]:
    """The runtime environment of a worker as Ray tells it; Python's path is this one's unless told."""
    found: dict[str, Any] = {"py_executable": sys.executable}
    for word in words:
        if word.startswith(CONTEXT):
            found |= {name: value for name, value in json.loads(word.removeprefix(CONTEXT)).items() if value}
    return found


def _variables(words: list[str]) -> dict[str, str] | None:
    """What Ray wants a worker to have beside this environment, or None where it is more than a copy can have."""
    found = {"env_vars": {}} | _context(words)
    same = found.keys() == {"py_executable", "env_vars"} and found["py_executable"] == sys.executable
    return found["env_vars"] if same and LANGUAGE + "PYTHON" in words else None


def _script(words: list[str]) -> int:
    """Where Python's own options end, which the server has too."""
    return next(place for place, word in enumerate(words) if not word.startswith("-"))


def _environment(added: dict[str, str]) -> dict[str, str]:
    """Ray's rule: a value may name variables, those before it too; what is not set is empty."""
    for name, value in added.items():
        os.environ[name] = UNSET.sub("", os.path.expandvars(value))
    return dict(os.environ)


def _copied(server: str, words: list[str]) -> bool:
    """Whether the server has made a copy of itself, with all that this process was given."""
    variables = _variables(words)
    if variables is None:
        return False
    try:
        asked = {
            "argv": [word for word in words[_script(words) :] if not word.startswith((CONTEXT, LANGUAGE))],
            "env": _environment(variables),
            "cwd": os.getcwd(),
            "nice": os.nice(0),
            "oom_score": OOM_SCORE.read_text(),
        }
        message = json.dumps(asked).encode()
        with socket.socket(socket.AF_UNIX) as talk:
            talk.connect(server)
            sent = socket.send_fds(talk, [message], [0, 1, 2])
            talk.sendall(message[sent:])
            talk.shutdown(socket.SHUT_WR)
            return bool(talk.recv(1))
    except OSError:
        return False


def _quoted(words: list[str]) -> list[str]:
    """Ray hands the path of Python to a shell as it is; a space would break it in two."""
    context = _context(words)
    if context["py_executable"] == sys.executable:
        context["py_executable"] = shlex.quote(sys.executable)
    return [*(word for word in words if not word.startswith(CONTEXT)), CONTEXT + json.dumps(context)]


if __name__ == "__main__":
    words, given = sys.argv[1:], dict(os.environ)
    if not _copied(given[SERVER], words):
        setup = str(Path(words[_script(words)]).with_name("setup_worker.py"))
        os.execve(sys.executable, [sys.executable, setup, *_quoted(words)], given)
