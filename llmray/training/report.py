"""`train.html`: how a run went, in one page.  Pure: it knows rows of metrics, not how they came about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llmray.store import page

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLOTS: Sequence[tuple[str, tuple[str, ...]]] = (
    ("loss", ("loss", "eval_loss")),
    ("learning rate", ("learning_rate",)),
    ("norm of the gradient", ("grad_norm",)),
    ("tokens a second", ("tokens_per_s",)),
    ("seconds waiting for data, of each row", ("data_wait_s",)),
    ("memory, bytes", ("memory_bytes",)),
    ("model FLOPs utilisation", ("flops_utilisation",)),
)


def render(title: str, status: str, rows: Sequence[Mapping[str, Any]], job: str) -> str:
    """The page: curves of whatever was measured, the last value of each metric, the job."""
    latest = {key: value for row in rows for key, value in row.items()}
    return page.page(
        title,
        [
            page.paragraph(status),
            *([page.figure(curves(rows), "over steps")] if rows else []),
            page.table(["metric", "last value"], latest.items()),
            page.heading("job.yaml"),
            page.code(job),
        ],
    )


def curves(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """A plot for each kind of metric that some row has."""
    known = [(label, names) for label, names in PLOTS if any(name in row for name in names for row in rows)]
    from matplotlib.figure import Figure  # half a second, which no first step waits for

    figure = Figure(figsize=(10, 2.6 * ((len(known) + 1) // 2)), layout="constrained")
    for number, (label, names) in enumerate(known, 1):
        axes = figure.add_subplot((len(known) + 1) // 2, 2, number, xlabel="step", title=label)
        for name in names:
            points = [(row["step"], row[name]) for row in rows if name in row]
            if points:
                axes.plot([x for x, _ in points], [y for _, y in points], ".-", markersize=3, label=name)
        if len(names) > 1:
            axes.legend()
        else:
            axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    return figure
