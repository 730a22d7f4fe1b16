"""What a run tells whoever watches it, and what ends it early.

It does not know what is learned.  Ray's own processes load this file, so it imports nothing heavy.
"""

from typing import Any

import ray
from ray.train import UserCallback
from ray.train.v2._internal.execution.callback import ControllerCallback

from llmray.stream.errors import cause_of


@ray.remote(num_cpus=0)
class Journal:
    """Carries rows from the first worker to the driver, and the driver's wish to stop back; knows who controls both.

    By id: actors that hold one another would never end.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.stop = False
        self.controller: str | None = None

    def tell(self, row: dict[str, Any]) -> None:
        self.rows.append(row)

    def take(self) -> list[dict[str, Any]]:
        rows, self.rows = self.rows, []
        return rows

    def ask_to_stop(self) -> None:
        self.stop = True

    def stopping(self) -> bool:
        return self.stop

    def introduce(self, controller: str) -> None:
        self.controller = controller

    def controlled_by(self) -> str | None:
        """The id of Ray Train's controller, once it has started."""
        return self.controller


class EndOnOurErrors(UserCallback):
    """Ends a run at once when a worker raised an error of ours: starting again would only raise it again."""

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        for error in worker_exceptions.values():
            if (cause := cause_of(error)) is not None:
                raise cause


class Introduce(ControllerCallback):
    """Tells the journal which actor controls the run."""

    def __init__(self, journal: Any) -> None:
        self.journal = journal

    def after_controller_start(self, train_run_context: Any) -> None:
        self.journal.introduce.remote(ray.get_runtime_context().get_actor_id())
