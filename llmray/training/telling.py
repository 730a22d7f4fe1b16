"""What the driver does with what a run tells: journal, progress, loggers, and the pages that stay when it ends.

It does not know who tells it.
"""

from collections.abc import Callable
from types import TracebackType
from typing import Any

from llmray.job.errors import InterruptedWorkError, JobError, StorageError
from llmray.job.load import dump
from llmray.job.schema import Job
from llmray.store import folder, journal, place
from llmray.store.journal import Progress
from llmray.training import failure
from llmray.training.loggers import Logger, loggers_of
from llmray.training.report import render

HTML = "train.html"


class Watch:
    """Takes the rows of a run.  At its end, `train.html` shows them; after a failure, `failure.html` says why."""

    def __init__(self, job: Job, label: str, progress: Progress) -> None:
        self.job, self.label, self.progress = job, label, progress
        self.path = place.join(job.output, journal.METRICS)
        self.loggers = loggers_of(job)
        self.logs: dict[int, str] = {}
        """Ends of the logs of workers that failed, by rank."""
        self.total: int | None = None
        self.started = False

    def __enter__(self) -> "Watch":
        self.progress.note(f"{self.label}: preparing")
        return self

    def take(self, rows: list[dict[str, Any]]) -> None:
        for row in rows:
            if "began_at" in row:
                self._begin(row["began_at"], row.get("workers"))
            elif "failed" in row:
                self.logs[row["failed"]] = row["log"]
            elif "warning" in row:
                self.warn(row["warning"])
            else:
                self._log(row)

    def warn(self, text: str) -> None:
        self.progress.note(f"! {self.label}: {text}")

    def _log(self, row: dict[str, Any]) -> None:
        place.patiently(lambda: journal.append(self.path, [row]), f"writing {self.path}", self.warn)
        self._each(lambda logger: logger.log(row))
        shown = {name: row[name] for name in ("loss", "eval_loss", "tokens_per_s") if name in row}
        self.progress.update(self.label, row["step"], **shown)

    def _begin(self, step: int, workers: int | None) -> None:
        """A run that resumes tells again what came after its checkpoint."""
        self.logs.clear()
        if place.exists(self.path):
            journal.rewrite(self.path, [r for r in journal.read(self.path) if float(str(r["step"])) <= step])
        self._each(lambda logger: logger.begin(step))
        if not self.started:
            self.progress.start(self.label, self.total)
            self.started = True
        wanted = self.job.scale.workers
        fewer = f"with {workers} of {wanted} workers" if workers not in (None, wanted) else ""
        if step or fewer:
            self.progress.note(f"{self.label}: {'resumed' if step else 'begins'} at step {step} {fewer}".rstrip())

    def _each(self, tell: Callable[[Logger], None]) -> None:
        for logger in list(self.loggers):
            try:
                tell(logger)
            except logger.troubles as error:
                self.loggers.remove(logger)
                self.warn(f"train.loggers: {type(logger).__name__} gets no more rows: {error}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        no_failure = isinstance(error, (JobError, InterruptedWorkError))
        failed = error if isinstance(error, Exception) and not no_failure else None
        try:
            if self.started:
                self._show("finished" if error is None else "failed" if failed else "stopped")
            if failed:
                folder.begin(self.job.output, self.job)  # so that there is a file to go on with
                page = failure.leave(self.job.output, failed, self.logs)
                self.progress.note(f"! {self.label}: what went wrong, and how to go on: {page}")
            elif self.started and not isinstance(error, (Exception, type(None))):  # torn off, by a second Ctrl-C
                go_on = folder.command(self.job.output)
                self.progress.note(f"! {self.label}: to go on from the newest checkpoint:\n  {go_on}")
        except (OSError, StorageError) as trouble:
            self.warn(f"the pages about the run cannot be written: {trouble}")

    def _show(self, status: str) -> None:
        self._each(lambda logger: logger.close(status))
        rows = journal.read(self.path)
        place.write_text(place.join(self.job.output, HTML), render(self.label, status, rows, dump(self.job)))
