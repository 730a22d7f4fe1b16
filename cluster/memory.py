"""How much memory one training worker of a job takes, estimated from the model's shape and the job's sections.

It does not build weights and starts nothing.  Weights, gradients and optimiser state are counted; what a pass keeps for
its way back is Korthikanti et al.'s count (https://arxiv.org/abs/2205.05198) for attention that keeps no scores.
"""

from dataclasses import dataclass

import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoConfig, PreTrainedTokenizerFast

from llmray.job.schema import Job
from llmray.job.training import Train
from llmray.model import presets
from llmray.model.fit import LENGTHS
from llmray.model.hub import reach
from llmray.model.load import NEW, Loading, resolve
from llmray.model.registry import nearest
from llmray.tasks import TASKS
from llmray.training.optim import block_matrices, blocks

GIB = 2**30
STATE_BYTES = {"adamw": 8, "adam": 8, "sgd": 4, "adafactor": 0, "muon": 8}
"""Of a learned weight, at most."""
SCORED = ("causal_lm", "masked_lm", "span_corruption", "translation", "captioning", "chat")
CHUNKED_SCORES = GIB
"""What `train.chunked_loss` keeps scores below, in bytes."""
KEPT_BYTES, KEPT_BETWEEN_BLOCKS_BYTES = 34, 2
"""Of a token, a layer and a unit of width in 16 bits: what a pass keeps, and what it keeps with checkpointing."""


@dataclass(frozen=True)
class Shape:
    parameters: int
    layers: int
    width: int
    vocabulary: int
    sides: int
    """Rows and columns of all matrices in its blocks, to which low-rank additions are made."""
    length: int
    """Tokens of the longest sequence."""


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
    chunked = job.task and job.task.name == "causal_lm" and train.chunked_loss
    return kept + (min(scores, 3.0 * CHUNKED_SCORES) if chunked else scores)


def shape(job: Job) -> Shape:
    """The shape of the job's model, from its config alone.  Raises `ModelError`, `JobError`."""
    assert job.model is not None
    assert job.task is not None
    length = max(getattr(job.task, key, 0) for key in LENGTHS)
    config = _config(job, length)
    auto = getattr(transformers, TASKS[job.task.name].auto_class)
    with torch.device("meta"):
        model = (
            transformers.VisionEncoderDecoderModel(config)
            if config.model_type == "vision-encoder-decoder"
            else auto.from_config(config)
        )
    text = config.get_text_config(decoder=True)
    sides = sum(sum(matrix.shape) for matrix in block_matrices(model))
    return Shape(model.num_parameters(), len(blocks(model)), text.hidden_size, text.vocab_size, sides, length)


def _config(job: Job, length: int) -> transformers.PretrainedConfig:
    assert job.model is not None
    assert job.task is not None
    reference = resolve(job.model.from_, nearest(job.output))
    if reference.startswith(NEW):
        words = _blank_tokenizer(job.data.tokenizer.vocab_size)
        return presets.new_config(reference.removeprefix(NEW), words, job.task.name, length)
    access = reach(reference, job.model.revision)
    with Loading(reference):
        trusted = job.model.trust_remote_code
        return AutoConfig.from_pretrained(reference, revision=job.model.revision, trust_remote_code=trusted, **access)


def _blank_tokenizer(size: int) -> PreTrainedTokenizerFast:
    """As many words as a trained one would have: a model's size depends on no more."""
    words = {"</s>": 0} | {str(number): number for number in range(1, size)}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel(words, "</s>")), eos_token="</s>")
