"""A command's output passed on, and kept in a file anywhere, so that it outlives the machine that ran it.

    python -m cluster.keep LOG RETRIES COMMAND …

A command that fails where another try might not is run again, up to RETRIES times.  It does not know what it does.
"""

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from llmray.job.errors import LlmrayError
from llmray.store import place

EVERY_S = 30.0
AGAIN_AFTER_S = 5.0
FINAL = (0, 2, 3, 130)
"""Exit codes that another try would only repeat: done, a wrong job file, a threshold missed, interrupted."""


def kept(log: str, retries: int, command: Sequence[str]) -> int:
    """Run the command to its end, which signals reach by themselves: its last exit code.

    `log` is written every half minute and at the end.  Where that fails the command goes on, and its output says so.
    """
    stopped, ended = threading.Event(), threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with TemporaryDirectory() as folder:
        here = Path(folder, "log")

        def save() -> None:
            try:
                place.write_text(log, here.read_text(encoding="utf-8", errors="replace"))
            except (LlmrayError, OSError) as error:
                print(f"{log}: this output could not be kept: {error}", flush=True)

        def watch() -> None:
            while not ended.wait(EVERY_S):
                save()

        with here.open("wb", buffering=0) as file:

            def tell(line: bytes) -> None:
                sys.stdout.buffer.write(line)
                sys.stdout.flush()
                file.write(line)

            watcher = threading.Thread(target=watch)
            watcher.start()
            again = 0
            try:
                while (code := _run(command, tell)) not in FINAL and again < retries and not stopped.is_set():
                    again += 1
                    what = f"! ended with exit code {code}; again in {AGAIN_AFTER_S:g} s ({again} of {retries})\n"
                    tell(what.encode())
                    if stopped.wait(AGAIN_AFTER_S):
                        break
            finally:  # also where the command cannot be started
                ended.set()
                watcher.join()
        save()
    return code


def _run(command: Sequence[str], tell: Callable[[bytes], None]) -> int:
    """Its exit code, as a shell would say it."""
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert child.stdout is not None
    for line in child.stdout:
        tell(line)
    code = child.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(kept(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))
