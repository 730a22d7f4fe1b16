"""Our own errors back out of Ray's wrapping.  It does not know what was being done."""

from collections.abc import Iterator
from contextlib import contextmanager

import ray

from llmray.job.errors import LlmrayError


@contextmanager
def surfaced() -> Iterator[None]:
    """Let an `LlmrayError` that was raised inside a Ray task reach the caller as itself."""
    try:
        yield
    except (ray.exceptions.RayError, SystemError) as error:
        ours = ours_within(error)
        if ours is None:
            raise
        raise ours from None


def ours_within(error: BaseException | None) -> LlmrayError | None:
    """The first error of ours among an error's causes."""
    while error is not None:
        if isinstance(error, LlmrayError) and not hasattr(error, "cause"):  # Ray's wrapper is of our class too
            return error
        error = getattr(error, "cause", None) or error.__cause__ or error.__context__
    return None
