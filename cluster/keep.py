"""A command's output passed on, and kept in a file anywhere, so that it outlives the machine that ran it.

    python -m cluster.keep LOG COMMAND …

It does not know what the command does.
"""

import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from llmray.job.errors import LlmrayError
from llmray.store import place

EVERY_S = 30.0


def kept(log: str, command: Sequence[str]) -> int:
    """Run the command to its end, which signals reach by themselves: its exit code.

    `log` is written every half minute and at the end.  Where that fails the command goes on, and its output says so.
    """
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert child.stdout is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    ended = threading.Event()
    with TemporaryDirectory() as folder:
        here = Path(folder, "log")
        here.touch()

        def save() -> None:
            try:
                place.write_text(log, here.read_text(encoding="utf-8", errors="replace"))
            except (LlmrayError, OSError) as error:
                print(f"{log}: this output could not be kept: {error}", flush=True)

        def watch() -> None:
            while not ended.wait(EVERY_S):
                save()

        watcher = threading.Thread(target=watch)
        watcher.start()
        with here.open("wb", buffering=0) as file:
            for line in child.stdout:
                sys.stdout.buffer.write(line)
                sys.stdout.flush()
                file.write(line)
        code = child.wait()
        ended.set()
        watcher.join()
        save()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(kept(sys.argv[1], sys.argv[2:]))
