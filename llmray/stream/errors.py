"""Our own errors back out of Ray's wrapping.  It does not know what was being done."""

from collections.abc import Iterator
from contextlib import contextmanager

import ray

from llmray.job.errors import LlmrayError

LINKS = ("controller_failure", "health_check_failure", "_base_exc", "cause", "__cause__", "__context__")
"""Where Ray Train, Ray Core and Python keep what an error wraps."""

ADVICE = "\nFailed to apply UDF transform after "
"""How Ray Data's advice on trying again begins, which is of no use for an error of ours."""


@contextmanager
def surfaced() -> Iterator[None]:
    """Let an `LlmrayError` that was raised inside a Ray task reach the caller as itself, and lack of memory as one."""
    try:
        yield
    except (ray.exceptions.RayError, SystemError) as error:
        if ours := cause_of(error):
            raise ours from None
        if any(isinstance(link, ray.exceptions.OutOfMemoryError) for link in chain(error)):
            raise LlmrayError(
                "out of memory: a task took more than this machine has left, again and again; lower the batch size, or"
                " free memory"
            ) from error
        raise


def cause_of(error: BaseException | None) -> LlmrayError | None:
    """The error of ours inside the wrappers that Ray put around it, without what Ray Data wrote into it."""
    for link in chain(error):
        if isinstance(link, LlmrayError) and not hasattr(link, "cause"):  # Ray's wrapper is of our class too
            link.args = tuple(a.partition(ADVICE)[0] if isinstance(a, str) else a for a in link.args)
            return link
    return None


def chain(error: BaseException | None) -> list[BaseException]:
    """An exception and all that it wraps, outermost first."""
    found: list[BaseException] = []
    waiting = [error]
    while waiting:
        link = waiting.pop(0)
        if link is None or link in found:
            continue
        found.append(link)
        waiting += getattr(link, "worker_failures", {}).values()
        waiting += [getattr(link, name, None) for name in LINKS]
    return found
