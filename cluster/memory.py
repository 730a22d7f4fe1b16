"""How much memory one training worker of a job takes, estimated from the model's shape and the job's sections.

It does not build weights and starts nothing.  Weights, gradients and optimiser state are counted; what a pass keeps for
its way back is Korthikanti et al.'s count (https://arxiv.org/abs/2205.05198) for attention that keeps no scores.
"""

from cluster.shape import Shape
from llmray.job.schema import Job
from llmray.job.training import CHUNKED, Train
from llmray.tasks.causal_lm import COMPILED_CHUNKED_FROM_BYTES

GIB = 2**30
STATE_BYTES = {"adamw": 8, "adam": 8, "sgd": 4, "adafactor": 0, "muon": 8}
"""Of a learned weight, at most."""
SCORED = ("causal_lm", "masked_lm", "span_corruption", "translation", "captioning", "chat")
KEPT_BYTES, KEPT_BETWEEN_BLOCKS_BYTES = 34, 2
"""Of a token, a layer and a unit of width in 16 bits: what a pass keeps, and what it keeps with checkpointing."""


def worker_gib(job: Job, shape: Shape) -> float:
    """Memory of one worker at its fullest, in GiB."""
    return (_lasting(job, shape) + _passing(job, shape)) / GIB


def _lasting(job: Job, shape: Shape) -> float:
    """Bytes of weights, gradients and optimiser state."""
    learned, scale = _learned(job.train, shape), job.scale
    state = (4 + STATE_BYTES[job.train.optimizer]) * learned
    if scale.workers == 1:
        return 4 * shape.parameters + state
    if scale.parallel == "fsdp":
        block = (shape.parameters - shape.vocabulary * shape.width) / shape.layers
        gathered = max(block, shape.vocabulary * shape.width)
        return (4 * shape.parameters + state) / scale.workers + 4 * gathered
    exchanged = 4 * learned if scale.parallel == "ddp" else 8 * shape.parameters
    return 4 * shape.parameters + state + exchanged


def _learned(train: Train, shape: Shape) -> float:
    return train.lora.rank * shape.sides if train.lora else shape.parameters


def _passing(job: Job, shape: Shape) -> float:
    """Bytes that a forward pass keeps for its backward pass, and those of the scores of all words."""
    train = job.train
    tokens = shape.length * train.batch_size / (train.accumulate * job.scale.workers)
    bytes_of_a_number = 2 if train.precision in ("bf16", "fp16") else 4
    layer = tokens * shape.width * bytes_of_a_number / 2
    if train.activation_checkpointing:
        kept = layer * (KEPT_BETWEEN_BLOCKS_BYTES * shape.layers + KEPT_BYTES)
    else:
        kept = layer * KEPT_BYTES * shape.layers
    scores = 3 * 4.0 * tokens * shape.vocabulary if job.task and job.task.name in SCORED else 0.0
    chunked = job.task and job.task.name in CHUNKED and train.chunked_loss
    return kept + (min(scores, 3.0 * COMPILED_CHUNKED_FROM_BYTES) if chunked else scores)
