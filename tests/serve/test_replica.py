"""What a replica does before it is asked anything."""

import pytest

from llmray.job.errors import ModelError
from llmray.job.schema import Endpoint
from llmray.model.predict import Predictor
from serve import replica


def test_a_model_that_loads_but_cannot_answer_is_not_served(speechless: str) -> None:
    assert Predictor.load(speechless, device="cpu")
    end = Endpoint.model_validate({"task": "qa", "model": speechless})
    with pytest.raises(ModelError, match=r"speechless cannot answer a plain qa request: .*IndexError"):
        replica.load(end, speechless)
