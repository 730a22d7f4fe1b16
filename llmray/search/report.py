"""What a sweep found, for people: a page with plots.  Pure.

It does not know how trials ran.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib.figure import Figure

from llmray.search.space import Values
from llmray.store import page

LOG_SPAN = 20
"""Values that span at least this factor are drawn on a logarithmic axis."""


@dataclass
class Outcome:
    """How one trial went."""

    values: Values
    total_steps: int
    status: str = "waiting"
    step: int = 0
    metric: float | None = None
    seconds: float = 0.0
    curve: list[tuple[int, float]] = field(default_factory=list)


def render(title: str, metric: str, outcomes: Sequence[Outcome], best: Outcome, best_yaml: str) -> str:
    """The page: the best values, how the metric depends on each key, learning curves, and every trial."""
    keys = list(best.values)
    order = sorted(outcomes, key=lambda o: (o is not best, o.metric is None, o.metric or 0.0))
    rows = [[*(o.values[k] for k in keys), o.metric, f"{o.step}/{o.total_steps}", o.status, o.seconds] for o in order]
    figures = [
        page.figure(scatter(outcomes, key, next((k for k in keys if k != key), None), metric), f"{metric} by {key}")
        for key in keys
        if all(_number(o.values[key]) for o in outcomes)
    ]
    said = ", ".join(f"{key} = {value}" for key, value in best.values.items())
    return page.page(
        title,
        [
            page.paragraph(f"Best {metric} {best.metric:.4g} with {said}."),
            *figures,
            page.figure(curves(outcomes, metric), f"{metric} while learning; a line that ends early was stopped"),
            page.table([*keys, metric, "steps", "status", "seconds"], rows),
            page.heading("best.yaml"),
            page.code(best_yaml),
        ],
    )


def scatter(outcomes: Sequence[Outcome], key: str, colour_by: str | None, metric: str) -> Figure:
    """The metric over one key, coloured by another."""
    figure = Figure(figsize=(7, 3.5))
    axes = figure.add_subplot(xlabel=key, ylabel=metric)
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.metric is not None:
            groups.setdefault(str(outcome.values.get(colour_by, "")) if colour_by else "", []).append(outcome)
    for name, members in groups.items():
        points = sorted((o.values[key], o.metric or 0.0) for o in members)
        axes.plot([x for x, _ in points], [y for _, y in points], "o", label=f"{colour_by} {name}", alpha=0.8)
    _log(axes, "x", [o.values[key] for o in outcomes])
    if colour_by:
        axes.legend()
    axes.grid(alpha=0.3)
    return figure


def curves(outcomes: Sequence[Outcome], metric: str) -> Figure:
    """The metric over steps, a line a trial."""
    figure = Figure(figsize=(7, 3.5))
    axes = figure.add_subplot(xlabel="step", ylabel=metric)
    for outcome in outcomes:
        label = ", ".join(f"{key.rsplit('.', 1)[-1]} {value}" for key, value in outcome.values.items())
        axes.plot([x for x, _ in outcome.curve], [y for _, y in outcome.curve], ".-", label=label)
    _log(axes, "y", [y for o in outcomes for _, y in o.curve])
    if len(outcomes) <= 12:
        axes.legend(fontsize="small")
    axes.grid(alpha=0.3)
    return figure


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _log(axes: Any, axis: str, values: Sequence[float]) -> None:
    if values and min(values) > 0 and max(values) >= LOG_SPAN * min(values):
        axes.set(**{f"{axis}scale": "log"})
