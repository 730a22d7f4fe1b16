"""What a sweep's driver hears of its trials, and how it ends them all.

It does not know what trials do.
"""

import threading
from collections.abc import Sequence
from typing import Any

from ray import tune
from ray.util.metrics import Gauge

from llmray.job.schema import Tune
from llmray.search.report import Outcome
from llmray.store.journal import Progress

STATUSES = ("waiting", "running", "finished", "stopped early", "diverged", "failed")


class Gauges:
    """What a sweep tells Prometheus: `ray_llmray_tune_…`, with its folder as the label `run`."""

    def __init__(self, run: str) -> None:
        self.run = run
        self.metric = Gauge("llmray_tune_metric", "The newest value of each trial's metric.", ("run", "trial"))
        self.trials = Gauge("llmray_tune_trials", "Trials by what became of them.", ("run", "status"))
        self.best = Gauge("llmray_tune_best", "The best value of the metric so far.", ("run",))
        self.steps = Gauge("llmray_tune_steps", "Steps that all trials took.", ("run",))

    def tell(self, outcomes: Sequence[Outcome], best: float | None, steps: int) -> None:
        for trial, outcome in enumerate(outcomes):
            if outcome.metric is not None:
                self.metric.set(outcome.metric, {"run": self.run, "trial": str(trial)})
        for status in STATUSES:
            count = sum(outcome.status == status for outcome in outcomes)
            self.trials.set(count, {"run": self.run, "status": status})
        if best is not None:
            self.best.set(best, {"run": self.run})
        self.steps.set(steps, {"run": self.run})


class Watch(tune.Callback):
    """Writes down what each trial reports and shows how far the sweep is."""

    def __init__(
        self, options: Tune, outcomes: Sequence[Outcome], label: str, progress: Progress, gauges: Gauges | None = None
    ) -> None:
        self.options, self.outcomes, self.label, self.progress = options, outcomes, label, progress
        self.gauges = gauges
        progress.start(label, sum(outcome.total_steps for outcome in outcomes))

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune writes itself down, this included; what is live stays here

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if self.options.metric not in result:
            return
        outcome = self.outcomes[trial.config["trial"]]
        outcome.step, outcome.metric = int(result["step"]), float(result[self.options.metric])
        outcome.seconds = float(result["time_total_s"])
        outcome.status = "diverged" if result["diverged"] else "running"
        if not result["diverged"]:
            outcome.curve.append((outcome.step, outcome.metric))
        self._show()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        outcome = self.outcomes[trial.config["trial"]]
        if outcome.status == "running":
            outcome.status = "finished" if outcome.step >= outcome.total_steps else "stopped early"
        self._show()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.outcomes[trial.config["trial"]].status = "failed"
        self._show()

    def _show(self) -> None:
        ended = [o for o in self.outcomes if o.status not in ("waiting", "running")]
        steps = sum(o.total_steps if o in ended else o.step for o in self.outcomes)
        found = [o.metric for o in self.outcomes if o.metric is not None]
        best = (min if self.options.mode == "min" else max)(found, default=None)
        if self.gauges:
            self.gauges.tell(self.outcomes, best, sum(o.step for o in self.outcomes))
        self.progress.update(self.label, steps, trials=f"{len(ended)}/{len(self.outcomes)}", best=best)


class StopAll(tune.Stopper):
    """Ends every trial once an event is set."""

    def __init__(self, event: threading.Event) -> None:
        self.event = event

    def __getstate__(self) -> dict[str, Any]:
        return {}  # as above

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return self.event.is_set()

    def stop_all(self) -> bool:
        return self.event.is_set()
