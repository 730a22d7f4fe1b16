"""Search spaces: which values are tried, and what is refused before anything starts."""

import pytest

from llmray.job.errors import JobError
from llmray.job.load import load
from llmray.job.schema import Job
from llmray.search.space import changes_data, draws, trials, variant


def job(space: dict, trials: int = 4, **sections: dict) -> Job:
    base = {"task": "qa", "model": {"from": "new:bert-tiny"}, "train": {"steps": 10, "batch_size": 32}}
    return load(base | sections | {"tune": {"space": space, "trials": trials}})


def test_choices_never_repeat_and_all_are_tried_when_there_is_room() -> None:
    space = {"train.learning_rate": [1e-3, 1e-2], "train.batch_size": [16, 32, 64]}
    found = draws(job(space, trials=100))
    assert len(found) == 6
    assert {(v["train.learning_rate"], v["train.batch_size"]) for v in found} == {
        (rate, size) for rate in (1e-3, 1e-2) for size in (16, 32, 64)
    }
    assert len(draws(job(space, trials=4))) == 4


def test_a_range_is_spanned_evenly() -> None:
    """Four draws from 1 to 16 in the logarithm: one in each of 1-2, 2-4, 4-8, 8-16."""
    found = draws(job({"train.clip_norm": {"min": 1, "max": 16, "log": True}}))
    values = sorted(v["train.clip_norm"] for v in found)
    assert [low <= value <= 2 * low for low, value in zip((1, 2, 4, 8), values, strict=True)] == [True] * 4


def test_draws_are_the_same_for_the_same_seed() -> None:
    space = {"train.learning_rate": {"min": 1e-4, "max": 1e-2, "log": True}, "train.batch_size": [16, 32]}
    assert draws(job(space)) == draws(job(space))


def test_whole_numbers_stay_whole() -> None:
    found = draws(job({"train.warmup_steps": {"min": 0, "max": 9}}))
    assert all(isinstance(v["train.warmup_steps"], int) for v in found)


def test_a_trial_is_a_job() -> None:
    found = trials(
        job(
            {"train.learning_rate": [0.1], "task.max_length": [64], "model.from": ["new:roberta-tiny"]},
            task={"name": "qa", "stride": 8},
        )
    )
    values, made = found[0]
    assert made.train.learning_rate == 0.1
    assert made.task is not None
    assert made.task.max_length == 64  # type: ignore[union-attr]
    assert made.model is not None
    assert made.model.from_ == "new:roberta-tiny"
    assert values == {"train.learning_rate": 0.1, "task.max_length": 64, "model.from": "new:roberta-tiny"}


def test_a_mistyped_key_names_the_nearest() -> None:
    with pytest.raises(JobError, match=r"train\.lerning_rate(.|\n)*learning_rate"):
        trials(job({"train.lerning_rate": [0.1]}))


def test_a_wrong_value_is_refused_though_it_might_not_be_drawn() -> None:
    with pytest.raises(JobError, match=r"train\.learning_rate=-1"):
        trials(job({"train.learning_rate": [0.1, 0.2, 0.3, -1]}, trials=1))


def test_batches_that_do_not_divide_are_refused() -> None:
    with pytest.raises(JobError, match=r"train\.batch_size=15(.|\n)*multiple of"):
        trials(job({"train.batch_size": [16, 15]}, scale={"workers": 2}))


@pytest.mark.parametrize("key", ["output", "data.eval", "scale.address", "tune.trials", "serve.port"])
def test_what_trials_must_share_cannot_be_searched(key: str) -> None:
    with pytest.raises(JobError, match="cannot be searched"):
        trials(job({key: ["x"]}))


def test_a_key_below_a_number_is_refused() -> None:
    with pytest.raises(JobError, match=r"train\.steps\.x"):
        trials(job({"train.steps.x": [1]}))


def test_only_some_keys_change_the_rows() -> None:
    for keys, changed in (
        ({"train.learning_rate": [0.1]}, False),
        ({"train.seed": [1]}, True),
        ({"task.stride": [4]}, True),
    ):
        tune = job(keys).tune
        assert tune is not None
        assert changes_data(tune) is changed


def test_variants_leave_the_rest_alone() -> None:
    base = job({"train.learning_rate": [0.1]})
    assert variant(base, {}) == base
