"""The shape of a job's model, from its config alone.  It builds no weights."""

from dataclasses import dataclass

import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoConfig, PreTrainedTokenizerFast

from llmray.job.schema import Job
from llmray.model import presets
from llmray.model.fit import LENGTHS
from llmray.model.hub import reach
from llmray.model.load import NEW, Loading, resolve
from llmray.model.registry import nearest
from llmray.tasks import TASKS
from llmray.training.flops import per_token
from llmray.training.optim import block_matrices, blocks


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
    flops: float | None = None
    """FLOPs of learning from one token, where they are known: for language models."""


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
    flops = per_token(model, job.task)
    return Shape(model.num_parameters(), len(blocks(model)), text.hidden_size, text.vocab_size, sides, length, flops)


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
