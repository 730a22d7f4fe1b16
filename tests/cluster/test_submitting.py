"""Sending a job to a head that is not ready for it yet."""

from typing import Any

import pytest

from cluster import jobs


class Head:
    """Refuses as Ray's does, `times` times."""

    def __init__(self, times: int, words: str) -> None:
        self.times, self.words, self.taken = times, words, list[dict[str, Any]]()

    def submit_job(self, **job: Any) -> None:
        if self.times:
            self.times -= 1
            raise RuntimeError(f"Request failed with status code 500: {self.words}.")
        self.taken.append(job)


def test_a_head_that_has_no_agent_yet_is_asked_again() -> None:
    head = Head(2, "No available agent to submit job, please try again later.")
    jobs._submit(head, submission_id="a")
    assert head.taken == [{"submission_id": "a"}]


def test_any_other_refusal_is_told_at_once() -> None:
    head = Head(1, "The disk is full")
    with pytest.raises(RuntimeError, match="The disk is full"):
        jobs._submit(head, submission_id="a")
    assert not head.taken
