"""What a run tells whoever watches it, and what ends it early.

It does not know what is learned.  Ray's own processes load this file, so it imports nothing heavy.
"""

from typing import Any

import ray
from ray.train import UserCallback

from llmray.job.errors import LlmrayError


@ray.remote(num_cpus=0)
class Journal:
    """Carries rows from the first worker to the driver, and the driver's wish to stop back."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.stop = False

    def tell(self, row: dict[str, Any]) -> None:
        self.rows.append(row)

    def take(self) -> list[dict[str, Any]]:
        rows, self.rows = self.rows, []
        return rows

    def ask_to_stop(self) -> None:
        self.stop = True

    def stopping(self) -> bool:
        return self.stop


class EndOnOurErrors(UserCallback):
    """Ends a run at once when a worker raised an error of ours: starting again would only raise it again."""

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        for error in worker_exceptions.values():
            if (cause := cause_of(error)) is not None:
                raise cause


def cause_of(error: BaseException | None) -> LlmrayError | None:
    """The error of ours inside the wrappers that Ray put around it."""
    for link in chain(error):
        if isinstance(link, LlmrayError) and not hasattr(link, "cause"):
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
        waiting += [getattr(link, name, None) for name in ("controller_failure", "_base_exc", "cause", "__cause__")]
    return found
