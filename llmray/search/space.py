"""A search space → the values to try → jobs to train.  Pure.

It does not know how trials run.  Every trial is a `Job`, judged before anything starts.
"""

import itertools
import math
import random
from collections.abc import Mapping
from typing import Any, TypeAlias

from llmray.job.errors import JobError
from llmray.job.load import load, set_key
from llmray.job.schema import Job, Range, Tune

Values: TypeAlias = dict[str, Any]

FIXED = ("output", "tune", "serve", "evaluate", "scale.address", "data.eval")
"""Keys that every trial must share, or their results could not be compared."""


def trials(job: Job) -> list[tuple[Values, Job]]:
    """The values that each trial tries, and the job that they make.  Raises `JobError` for any that is no job."""
    assert job.tune is not None
    for key, space in job.tune.space.items():
        if any(key == fixed or key.startswith(fixed + ".") for fixed in FIXED):
            raise JobError(f"tune.space.{key}: this key cannot be searched; trials must share {', '.join(FIXED)}")
        for value in (space.min, space.max) if isinstance(space, Range) else space:
            if "batch_size" not in key and "accumulate" not in key:  # these are judged together, below
                variant(job, {key: _fitting(job, key, value)})
    return [(values, variant(job, values)) for values in draws(job)]


def draws(job: Job) -> list[Values]:
    """Values of each trial, the same for the same seed.

    Choices alone are tried without repeating any combination, all of them if `trials` allows.  A range is cut into as
    many slices as there are trials and one value is drawn from each (Latin hypercube), so that few trials span it.
    """
    assert job.tune is not None
    chance, tune = random.Random(job.tune.seed), job.tune
    choices = {key: space for key, space in tune.space.items() if not isinstance(space, Range)}
    ranges = {key: space for key, space in tune.space.items() if isinstance(space, Range)}
    combinations = [dict(zip(choices, found, strict=True)) for found in itertools.product(*choices.values())]
    chance.shuffle(combinations)
    count = tune.trials if ranges else min(tune.trials, len(combinations))
    columns = {key: _spread(space, count, chance) for key, space in ranges.items()}
    found = [
        combinations[i % len(combinations)] | {key: _fitting(job, key, column[i]) for key, column in columns.items()}
        for i in range(count)
    ]
    return [{key: values[key] for key in tune.space} for values in found]


def variant(job: Job, values: Mapping[str, Any]) -> Job:
    """The job with values set by dotted key."""
    tree = job.model_dump(mode="json", by_alias=True)
    try:
        for key, value in values.items():
            set_key(tree, key, value)
        return load(tree)
    except (IndexError, TypeError, ValueError, AttributeError):
        raise JobError(f"tune.space: there is nothing at {', '.join(values)} to set") from None
    except JobError as error:
        said = ", ".join(f"{key}={value}" for key, value in values.items())
        raise JobError(f"tune.space: a trial with {said} is not a valid job\n{error}") from None


def changes_data(tune: Tune) -> bool:
    """Whether trials see different rows, so that they cannot share one encoded copy."""
    return any(not key.startswith("train.") or key == "train.seed" for key in tune.space)


def _spread(space: Range, count: int, chance: random.Random) -> list[float]:
    low, high = (math.log(space.min), math.log(space.max)) if space.log else (space.min, space.max)
    found = [low + (high - low) * (i + chance.random()) / count for i in range(count)]
    chance.shuffle(found)
    return [float(f"{math.exp(x) if space.log else x:.4g}") for x in found]


def _fitting(job: Job, key: str, value: Any) -> Any:
    """A drawn number as its key wants it: whole where the job has a whole number."""
    here: Any = job.model_dump(mode="json", by_alias=True)
    for part in key.split("."):
        here = here.get(part) if isinstance(here, dict) else None
    whole = isinstance(here, int) and not isinstance(here, bool)
    return round(value) if whole and isinstance(value, float) else value
