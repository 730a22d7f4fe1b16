"""One copy of one endpoint's model, warmed up, and the web application in front of it.

It does not know Ray.  Importing it costs seconds (torch, transformers), which only a replica has to spend.
"""

import io
from collections.abc import Callable, Mapping
from math import ceil
from typing import Any

import torch
from fastapi import FastAPI
from PIL import Image

from llmray.job.errors import ModelError, RequestError
from llmray.job.schema import Endpoint, Limits, Model
from llmray.model.predict import Predictor
from llmray.tasks.base import Request
from serve import routes
from serve.batcher import Batcher, Pass
from serve.gate import Gate
from serve.lineage import lineage
from serve.shapes import GENERATING, Identity


def load(endpoint: Endpoint, model: str) -> Predictor:
    """The model, after it has answered one request: no user waits for a first pass, no broken model is served."""
    torch.set_num_threads(max(1, ceil(endpoint.cpus)))
    section = Model.model_validate(
        {"from": model} | endpoint.model_dump(include={"tokenizer", "revision", "trust_remote_code"})
    )
    predictor = Predictor.load(section, endpoint.task, "cuda" if endpoint.gpus else "cpu", engine=endpoint.engine)
    [outcome] = predictor.predict([example(predictor)])
    if isinstance(outcome, RequestError):
        raise ModelError(f"{model} cannot answer a plain {endpoint.task.name} request: {outcome}")
    return predictor


def queue(
    endpoint: Endpoint, predictor: Predictor, limits: Limits, told: Callable[[Pass], object] = lambda done: None
) -> Batcher:
    """The one queue of all that is asked of it; `told` hears of every pass of the model."""
    return Batcher(
        predictor.predict,
        predictor.stream,
        max_batch_size=endpoint.max_batch_size,
        wait_s=endpoint.batch_wait_s,
        max_queued=endpoint.max_queued,
        deadline_s=limits.deadline_s,
        told=told,
    )


def identity(predictor: Predictor, model: str) -> Identity:
    version = str(predictor.version)
    return Identity(predictor.name, version, predictor.engine, lineage(model, version))


def application(
    endpoint: Endpoint, identity: Identity, batcher: Batcher, gate: Gate, about: Mapping[str, Any]
) -> FastAPI:
    return routes.build(endpoint.task.name, identity, batcher, gate, about, alias=endpoint.name)


def example(predictor: Predictor) -> Request:
    """A small request of the model's task."""
    task, mask = predictor.task.name, predictor.task.processor.tokenizer.mask_token
    inputs: dict[str, dict[str, Any]] = {
        "qa": {"question": "What is red?", "context": "The circle is red."},
        "translation": {"text": "a red circle"},
        "captioning": {"image": _picture()},
        "causal_lm": {"text": "a red circle"},
        "masked_lm": {"text": f"a red {mask}"},
        "classification": {"text": "a red circle"},
        "chat": {"messages": [{"role": "user", "content": "a red circle"}]},
    }
    return Request(inputs[task], {"max_new_tokens": 2} if task in GENERATING else {})


def _picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (32, 32), "white").save(file, "PNG")
    return file.getvalue()
