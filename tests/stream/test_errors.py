"""The error of ours inside Ray's wrappers."""

import pickle

from ray.exceptions import RayTaskError
from ray.train.v2._internal.exceptions import UserExceptionWithTraceback
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

from llmray.job.errors import DataError, ModelError
from llmray.stream.errors import cause_of, chain


def test_ours_is_found_below_workers_tasks_and_causes() -> None:
    ours = DataError("rows.jsonl:3: no column 'text'")
    task = RayTaskError("encode", "traceback", ours).as_instanceof_cause()
    assert isinstance(task, DataError)  # but its text is the whole traceback
    told = RuntimeError("batch failed")
    told.__cause__ = task
    failed = WorkerGroupError("two workers", {1: UserExceptionWithTraceback(told, "traceback")})
    assert str(cause_of(failed)) == "rows.jsonl:3: no column 'text'"
    assert str(cause_of(pickle.loads(pickle.dumps(failed)).worker_failures[1]._base_exc.__cause__ or failed))


def test_ours_is_found_in_the_controller() -> None:
    assert isinstance(cause_of(ControllerError(ModelError("no such preset"))), ModelError)


def test_foreign_errors_stay_foreign() -> None:
    root = ValueError("shape")
    failed = WorkerGroupError("a worker", {0: UserExceptionWithTraceback(root, "traceback")})
    assert cause_of(failed) is None
    assert chain(failed)[-1] is root
