"""The one error family: what went wrong, in words a person can act on, and the exit code it means.

It knows nothing of who raises or catches it.  Every error keeps its data in `args`, so that it survives
pickling on its way across Ray.
"""


class LlmrayError(Exception):
    """Base of every error that llmray raises on purpose: the work failed."""

    exit_code = 1


class JobError(LlmrayError):
    """The job file or the arguments are wrong; nothing was started."""

    exit_code = 2


class DataError(LlmrayError):
    """A corpus cannot be read: the message names the file and the record."""


class ModelError(LlmrayError):
    """A model or tokenizer cannot be built, loaded or saved."""


class StoreError(LlmrayError):
    """A run folder, a registry or the storage beneath them is not as it should be."""


class StorageError(StoreError):
    """The storage gives no access or has no room now; that may change."""


class ClusterError(LlmrayError):
    """A Ray cluster, job or port cannot be had."""


class RequestError(LlmrayError):
    """One request is wrong; the others of its batch are not disturbed.

    `args` are the message and the HTTP status that it means (400, 413, 415, 422 …).
    """

    def __init__(self, message: str, status: int = 422) -> None:
        super().__init__(message, status)

    def __str__(self) -> str:
        return str(self.args[0])

    @property
    def status(self) -> int:
        return int(self.args[1])


class ThresholdError(LlmrayError):
    """The work was done but a metric fell short of what the job file demands."""

    exit_code = 3


class InterruptedWorkError(LlmrayError):
    """Stopped by the user; the message says how to go on."""

    exit_code = 130
