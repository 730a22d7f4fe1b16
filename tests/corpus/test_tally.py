"""Every record is accounted for, and the parts add up to the whole."""

import pytest

from llmray.corpus.tally import Tally, total
from llmray.job.errors import StoreError


def tally() -> Tally:
    found = Tally(read=4)
    found.keep(100)
    found.keep(127)
    found.drop("too short", "a" * 1000)
    found.quarantine("not JSON", "a.jsonl, line 3: not JSON")
    return found


def test_counts_lengths_and_examples():
    found = tally()
    assert (found.kept, found.dropped, found.quarantined) == (2, {"too short": 1}, {"not JSON": 1})
    assert found.lengths == {64: 2}
    assert found.examples == {"too short": ["a" * 300], "not JSON": ["a.jsonl, line 3: not JSON"]}
    found.require_whole("a")


def test_parts_add_up():
    whole = total([tally(), tally()])
    assert (whole.read, whole.kept, whole.dropped, whole.lengths) == (8, 4, {"too short": 2}, {64: 4})
    assert whole.examples["too short"] == ["a" * 300] * 2
    assert Tally.model_validate_json(whole.model_dump_json()) == whole


def test_what_was_kept_can_be_dropped_after_all():
    found = tally()
    found.drop_kept("copy", 1)
    assert (found.kept, found.dropped) == (1, {"too short": 1, "copy": 1})
    found.require_whole("a")


def test_a_record_that_is_lost_stops_everything():
    found = tally()
    found.read += 1
    with pytest.raises(StoreError, match=r"a: 5 records were read but 4 are accounted for"):
        found.require_whole("a")
