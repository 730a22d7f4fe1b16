"""Metrics against their thresholds, and an evaluation as a page.  It does not know how the metrics were obtained."""

from collections.abc import Mapping, Sequence
from typing import Any

from llmray.job.results import EvaluateResult
from llmray.job.schema import Bound
from llmray.store import page


def misses(metrics: Mapping[str, float], thresholds: Mapping[str, Bound]) -> list[str]:
    """What fell short, in words; empty when everything held.  A metric that was not measured is a miss."""
    found = []
    for name, bound in thresholds.items():
        value = metrics.get(name)
        if value is None:
            found.append(f"{name} was not measured (measured: {', '.join(sorted(metrics))})")
        elif bound.min is not None and not value >= bound.min:
            found.append(f"{name} is {value:.4g}, below {bound.min:.4g}")
        elif bound.max is not None and not value <= bound.max:
            found.append(f"{name} is {value:.4g}, above {bound.max:.4g}")
    return found


def render(result: EvaluateResult, model: str, examples: Sequence[Mapping[str, Any]]) -> str:
    """`report.html`: the metrics beside the baseline's, and some measurements as they are."""
    rows = [(name, value, result.baseline.get(name, "")) for name, value in sorted(result.metrics.items())]
    columns = sorted({key for example in examples for key in example})
    return page.page(
        f"{result.task}: {model}",
        [
            page.paragraph(f"{result.rows:,} held-out rows, {result.seconds:.1f} s."),
            page.table(["metric", "model", "naive baseline"], rows),
            page.heading("Examples"),
            page.table(columns, [[example.get(c, "") for c in columns] for example in examples]),
        ],
    )
