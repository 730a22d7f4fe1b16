"""What a run tells whoever watches it, and what ends it early.

It does not know what is learned.  Ray's own processes load this file, so it imports nothing heavy.
"""

from typing import Any

import ray
from ray.train import UserCallback

from llmray.stream.errors import cause_of


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
