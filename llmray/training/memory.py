"""Want of memory, told with the worker that had it and the sizes that take less.  It does not know what was tried."""

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from llmray.job.errors import LlmrayError
from llmray.job.training import Train
from llmray.training.attempt import Seat

OUT_OF_MEMORY = re.compile(r"out of memory|can't allocate memory", re.IGNORECASE)
"""How torch says it, of a GPU and of a CPU."""


class MemoryExhaustedError(LlmrayError):
    """A worker ran out of memory; starting it again would only end in the same way."""


@contextmanager
def within_memory(seat: Seat, train: Train) -> Iterator[None]:
    """Says which worker ran out of memory, and which sizes take less."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not OUT_OF_MEMORY.search(str(error)):
            raise
        said = str(error).partition("\n")[0]
        raise MemoryExhaustedError(
            f"worker {seat.rank} of {seat.world} ({seat.device} of {socket.gethostname()}) ran out of memory: {said}\n"
            + smaller(train, seat.world)
        ) from error


def smaller(train: Train, world: int) -> str:
    """What takes less memory: first of all values of `train.accumulate`, which leave the whole batch the same."""
    rows = train.batch_size // (world * train.accumulate)
    whole = [parts for parts in (2, 4, 8) if rows % parts == 0]
    fewer = ", ".join(f"train.accumulate={train.accumulate * parts} takes {rows // parts}" for parts in whole)
    lower = "lower train.batch_size, the task's length or the model's size"
    return f"It took {rows} rows at a time; {fewer}. Or {lower}" if fewer else lower.capitalize()
