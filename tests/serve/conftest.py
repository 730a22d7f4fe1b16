"""What tests of serving share."""

import threading
from collections.abc import Callable

import pytest

from llmray.model.generate import Stream
from llmray.tasks.base import Request


@pytest.fixture
def endless() -> tuple[Callable[[Request], Stream], threading.Event]:
    """A model that writes for ever, and whether it was stopped."""
    closed = threading.Event()

    def stream(request: Request) -> Stream:
        try:
            while True:
                yield "on"
        finally:
            closed.set()

    return stream, closed
