"""One trial of a sweep: a training without checkpoints or model, told step by step to Ray Tune.

It does not know how trials are chosen or judged.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import ray
import torch
from ray import tune

from llmray.training.attempt import Attempt, Seat, Work, over
from llmray.training.driver import on_workers
from llmray.training.loop import DivergedError, Row
from llmray.training.plan import encoded_sources


@dataclass(frozen=True)
class Sweep:
    """What trials are told: each one's work, what is compared, and the rows that they share (None: each its own)."""

    works: tuple[Work, ...]
    metric: str
    worst: float
    datasets: Mapping[str, Any] | None

    def rows_of(self, work: Work) -> Mapping[str, Any]:
        return self.datasets or encoded_sources(work.job, work.task)


class Reports:
    """Turns a training's rows into reports: one whenever the metric is known, with the latest of everything else."""

    def __init__(self, sweep: Sweep, work: Work) -> None:
        self.sweep, self.work = sweep, work
        self.seen: Row = {}

    def of(self, row: Row) -> dict[str, Any] | None:
        self.seen |= row
        if self.sweep.metric not in row:
            return None
        return {**self.seen, "done": over(self.work, self.seen), "diverged": False}

    def diverged(self) -> dict[str, Any]:
        """The worst value there is, at a step that was not reported yet."""
        step = self.seen.get("step", 0) + 1
        return {**self.seen, "step": step, self.sweep.metric: self.sweep.worst, "done": True, "diverged": True}


class Trial(tune.Trainable):
    """A trial in one process.  The process serves one trial after another: its imports are paid for once."""

    def setup(self, config: dict[str, Any]) -> None:
        self.sweep: Sweep = ray.get(config["sweep"])
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        work = self.sweep.works[new_config["trial"]]
        torch.set_num_threads(max(1, int(work.job.scale.cpus_per_worker)))
        device = torch.device("cuda" if work.job.scale.gpus_per_worker else "cpu")
        shards = {name: ds.iterator() for name, ds in self.sweep.rows_of(work).items()}
        self.reports = Reports(self.sweep, work)
        self.rows: Iterator[Row] = Attempt(work, Seat(device=device), shards, None).rows()
        return True

    def step(self) -> dict[str, Any]:
        try:
            return next(report for row in self.rows if (report := self.reports.of(row)))
        except DivergedError:
            return self.reports.diverged()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: a trial is short, and what it learned is not kept."""


def spread_trial(config: dict[str, Any]) -> None:
    """A trial on several workers: this process only passes on what they tell."""
    sweep: Sweep = ray.get(config["sweep"])
    work = sweep.works[config["trial"]]
    reports = Reports(sweep, work)

    def take(rows: list[Row]) -> None:
        for row in rows:
            if "began_at" in row:
                continue
            if report := reports.of(row):
                tune.report(report)

    try:
        on_workers(work, sweep.rows_of(work), take)
    except DivergedError:
        tune.report(reports.diverged())
