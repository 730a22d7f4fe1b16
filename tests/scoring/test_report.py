"""Thresholds are judged in words; the page needs nothing from anywhere."""

from llmray.job.results import EvaluateResult
from llmray.job.schema import Bound
from llmray.scoring.report import misses, render


def test_misses_name_metric_value_and_bound():
    found = misses({"f1": 80.0, "loss": 2.0}, {"f1": Bound(min=90), "loss": Bound(max=1.5), "bleu": Bound(min=1)})
    assert found == [
        "f1 is 80, below 90",
        "loss is 2, above 1.5",
        "bleu was not measured (measured: f1, loss)",
    ]


def test_bounds_that_hold_and_a_value_that_is_no_number():
    assert misses({"f1": 90.0}, {"f1": Bound(min=90, max=90)}) == []
    assert misses({"f1": float("nan")}, {"f1": Bound(min=90)}) == ["f1 is nan, below 90"]


def test_page_is_self_contained_and_escapes():
    result = EvaluateResult(report="r", task="qa", rows=2, metrics={"f1": 1.0}, baseline={"f1": 0.5}, seconds=1)
    html = render(result, "runs/<qa>", [{"answer": "<script>alert(1)</script>"}])
    assert "runs/&lt;qa&gt;" in html
    assert "<script" not in html
    assert "http" not in html
