"""The sweep's page."""

from llmray.search.report import Outcome, render


def test_the_page_is_whole_and_self_contained() -> None:
    def outcome(rate: float, size: int, metric: float | None, status: str) -> Outcome:
        curve = [(5, 4.0), (10, metric)] if metric else []
        return Outcome({"train.learning_rate": rate, "train.batch_size": size}, 10, status, 10, metric, 1.0, curve)

    best = outcome(1e-2, 32, 1.25, "finished")
    others = [outcome(1e-4, 32, 3.5, "stopped early"), outcome(9.0, 16, None, "failed")]
    html = render("Sweep <x>", "eval_loss", [*others, best], best, "task: qa")
    assert html.count("<svg") == 3  # one a searched number, one of learning curves
    assert "Sweep &lt;x&gt;" in html
    assert "train.learning_rate = 0.01" in html
    assert "stopped early" in html
    assert "task: qa" in html
    assert "<script" not in html
    assert "http://" not in html.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )
