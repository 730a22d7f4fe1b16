"""How a run is asked to end: by Ctrl-C or SIGTERM in the driver, by a flag in a worker.

It does not know what ends.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

POLL_S = 0.5


def never() -> bool:
    return False


@contextmanager
def interrupts(patient: bool = False) -> Iterator[threading.Event]:
    """An event that the first Ctrl-C or SIGTERM sets, so that work can end well; the second one interrupts at once, as
    whoever listened before says, or, where `patient`, adds nothing: code of others may lose an exception."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def handler(number: int, frame: Any) -> None:
        if patient or not event.is_set():
            event.set()
            return
        listening = before[number]
        if callable(listening):
            listening(number, frame)
        raise KeyboardInterrupt

    before = {int(number): signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, handler)
    try:
        yield event
    finally:
        for number, listening in before.items():
            if signal.getsignal(number) is handler:
                signal.signal(number, listening)


@contextmanager
def flag(ask: Callable[[], bool], every_s: float = POLL_S) -> Iterator[threading.Event]:
    """An event that is set once `ask()` says yes; asked in a thread of its own."""
    event, ended = threading.Event(), threading.Event()

    def watch() -> None:
        while not ended.wait(every_s) and not event.is_set():
            if ask():
                event.set()

    threading.Thread(target=watch, daemon=True, name="stop-flag").start()
    try:
        yield event
    finally:
        ended.set()
