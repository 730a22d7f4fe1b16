"""Ray Train as the driver sets it up."""

import pytest
from ray.train import ScalingConfig
from ray.train.v2._internal.callbacks import DatasetsCallback

from llmray.training.driver import _Trainer


@pytest.mark.parametrize("datasets", [{}, {"train": None}])
def test_data_sets_are_handed_out_only_where_there_are_some(datasets: dict[str, None]) -> None:
    trainer = _Trainer(print, scaling_config=ScalingConfig(num_workers=1), datasets=datasets)
    hands_out = [isinstance(each, DatasetsCallback) for each in trainer._create_default_callbacks()]
    assert any(hands_out) == bool(datasets)
    assert len(hands_out) > 1
