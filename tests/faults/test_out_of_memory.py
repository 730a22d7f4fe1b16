"""A task that takes more memory than there is ends the work with an error, rather than being tried for ever."""

import os
import subprocess
import sys

import psutil
import pytest

ROOM_BYTES = 1 << 30
"""What the task may take; it wants three times as much."""

PROGRAM = f"""
import time
import numpy as np
from cluster.session import session
from llmray.job.errors import LlmrayError
from llmray.job.training import Scale
from llmray.stream.datasets import each
from llmray.stream.errors import surfaced

def greedy(batch):
    kept = []
    for _ in range(30):
        kept.append(np.ones({ROOM_BYTES} // 80))
        time.sleep(0.03)
    yield batch

with session(Scale()):
    try:
        with surfaced():
            each(1, greedy).take_all()
    except LlmrayError as error:
        print(error)
"""


@pytest.mark.slow
def test_it_is_said_after_three_tries() -> None:
    memory = psutil.virtual_memory()
    threshold = (memory.total - memory.available + ROOM_BYTES) / memory.total
    settings = {"RAY_memory_usage_threshold": f"{threshold:.3f}", "RAY_memory_monitor_refresh_ms": "100"}
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=os.environ | settings, check=False
    )
    assert run.returncode == 0, run.stderr
    assert "out of memory: a task took more than this machine has left" in run.stdout, run.stdout
