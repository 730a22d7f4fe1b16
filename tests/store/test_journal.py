"""The journal keeps whole rows only; progress speaks to people and never to standard output."""

import io
import resource

import pytest

from llmray.store import journal


def test_rows_come_back_in_order_and_a_torn_line_is_left_out(tmp_path):
    path = str(tmp_path / "run" / "metrics.jsonl")
    journal.append(path, [{"step": 1, "loss": 2.5}])
    journal.append(path, [{"step": 2, "loss": 2.0}])
    with open(path, "a") as file:
        file.write('{"step": 3, "lo')
    assert journal.read(path) == [{"step": 1, "loss": 2.5}, {"step": 2, "loss": 2.0}]


def test_nothing_there_is_an_empty_journal(tmp_path):
    assert journal.read(str(tmp_path / "none.jsonl")) == []


def test_object_storage_journal():
    journal.append("memory://journal/metrics.jsonl", [{"step": 1}])
    journal.append("memory://journal/metrics.jsonl", [{"step": 2}])
    assert journal.read("memory://journal/metrics.jsonl") == [{"step": 1}, {"step": 2}]


def test_progress_off_a_terminal_is_plain_lines():
    stream = io.StringIO()
    progress = journal.Progress(stream)
    progress.start("train", 10)
    progress.update("train", 5, loss=1.0)
    progress.done("train", "loss 1.000")
    assert stream.getvalue().startswith("train …\n✓ train  loss 1.000  (")


def test_metrics_are_spoken_with_sensible_digits():
    assert journal.spoken({"loss": 2.34567, "tokens_per_s": 12345.6, "lr": 0.0005, "step": 1200}) == (
        "loss 2.346  tokens/s 12,346  lr 0.0005  step 1,200"
    )


def test_rows_take_the_place_of_rows(tmp_path):
    path = str(tmp_path / "metrics.jsonl")
    journal.append(path, [{"step": 1}, {"step": 2}])
    journal.rewrite(path, [{"step": 1}])
    journal.append(path, [{"step": 3}])
    assert journal.read(path) == [{"step": 1}, {"step": 3}]


def test_a_full_disk_leaves_no_half_line(tmp_path):
    """A limit on the size of files stands for the disk: what was whole stays so, and the next try is whole too."""
    path, limits = str(tmp_path / "metrics.jsonl"), resource.getrlimit(resource.RLIMIT_FSIZE)
    journal.append(path, [{"step": 1}])
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            journal.append(path, [{"step": 2, "loss": 2.5}])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    journal.append(path, [{"step": 2}])
    assert journal.read(path) == [{"step": 1}, {"step": 2}]
