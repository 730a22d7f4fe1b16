"""The `train` and `scale` sections of a job file: how a model learns, and on how many workers.

It does not know what is learned.  As in `schema`, a field's docstring is its only documentation.
"""

import math
from typing import Literal

from pydantic import Field, model_validator

from llmray.job.section import Section


class LoRA(Section):
    rank: int = Field(8, ge=1)
    """Rank of the additions."""
    alpha: float = Field(16, gt=0)
    """The additions are multiplied by alpha / rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the additions' inputs that is dropped in training."""
    targets: tuple[str, ...] | None = Field(None, min_length=1)
    """Names of the matrices that get additions, as `q_proj`; null: all in the model's blocks."""


CHUNKED = ("causal_lm", "chat")
"""Tasks whose loss can be taken in chunks."""


class Train(Section):
    steps: int | None = Field(None, ge=1)
    """Optimiser steps. Give this or `epochs`."""
    epochs: int | None = Field(None, ge=1)
    """Passes over the training sources. Give this or `steps`."""
    batch_size: int = Field(32, ge=1)
    """Rows (blocks, for language modelling) of one optimiser step, over all workers and accumulation passes."""
    accumulate: int = Field(1, ge=1)
    """Forward and backward passes that share one optimiser step, to fit a large batch into memory."""
    learning_rate: float = Field(5e-4, gt=0)
    """Peak of the schedule."""
    optimizer: Literal["adamw", "adam", "sgd", "adafactor", "muon"] = "adamw"
    """How a gradient becomes a step. `adafactor` (https://arxiv.org/abs/1804.04235) keeps means of rows and
    columns instead of a second moment of every weight; `muon` (https://arxiv.org/abs/2502.16982) makes the steps of the
    matrices in a model's blocks orthogonal, as large as AdamW's, and leaves embeddings, heads, biases and norms to
    AdamW."""
    momentum: float | None = Field(None, ge=0, lt=1)
    """Of `sgd` (null: 0.9) and `muon` (null: 0.95)."""
    schedule: Literal["constant", "linear", "cosine", "inverse_sqrt", "step", "wsd"] = "cosine"
    """How the learning rate decays after warm-up. `inverse_sqrt`: with the root of the steps taken; `step`: by
    `decay_factor` every `decay_every` steps; `wsd`: not at all, then linearly over the last `decay_share` of the run
    (https://arxiv.org/abs/2404.06395)."""
    warmup_steps: int = Field(0, ge=0)
    """Steps over which the learning rate rises from 0."""
    decay_every: int | None = Field(None, ge=1)
    """Steps between the drops of `schedule: step`."""
    decay_factor: float | None = Field(None, gt=0, lt=1)
    """What a drop of `schedule: step` leaves of the learning rate; null: 0.1."""
    decay_share: float | None = Field(None, gt=0, le=1)
    """Share of the steps after warm-up in which the learning rate of `schedule: wsd` falls; null: 0.2."""
    weight_decay: float = Field(0.01, ge=0)
    """Decay of weight matrices; biases and norms have none. Apart from the gradient, but for `adam` and `sgd`, which
    add it to it."""
    clip_norm: float | None = Field(1.0, gt=0)
    """Largest norm of the gradient; null for none."""
    max_loss: float | None = Field(None, gt=0)
    """A loss of one step above which training counts as diverged and ends, as it does where loss or gradient are no
    numbers; null for none."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of each target that is spread over all classes alike; validation does without."""
    chunked_loss: bool | Literal["auto"] = "auto"
    """`causal_lm` and `chat`: take loss and gradient of some tokens at a time, so that no worker ever holds the scores
    of all words at all places; auto: where those would take more than 16 MiB (1 GiB in a compiled model, where taking
    them whole is faster)."""
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = "auto"
    """bf16: products in bfloat16 (autocast), weights and optimiser in fp32; auto: bf16 where every worker's hardware
    multiplies it, else fp32 (a processor that must emulate it is two hundred times slower). On GPUs only: tf32,
    products of fp32 numbers rounded to 10 bits; fp16, products in float16 with a loss scaled to its range."""
    activation_checkpointing: bool = False
    """Keep only what enters each block and compute the rest again on the way back: less memory, a third more work."""
    compile: bool = False
    """Compile the model with `torch.compile`: some minutes at the start, faster steps; needs a C++ compiler."""
    lora: LoRA | None = None
    """Learn low-rank additions to a trained model's matrices instead of all its weights
    (https://arxiv.org/abs/2106.09685); the model that is saved has them added in. Needs `pip install llmray[lora]`."""
    patience: int | None = Field(None, ge=1)
    """Validations in a row without a new best `eval_loss` after which the run ends; null: it never ends early."""
    seed: int = Field(0, ge=0)
    """Seeds weights, dropout, masks and shuffling."""
    log_every: int = Field(10, ge=1)
    """Steps between lines of `metrics.jsonl`."""
    eval_every: int | None = Field(None, ge=1)
    """Steps between validations; the end of the run always has one when `data.eval` is given."""
    checkpoint_every: int | None = Field(None, ge=1)
    """Steps between checkpoints; the end of the run always has one."""
    keep_checkpoints: int = Field(2, ge=1)
    """Newest checkpoints that are kept."""
    keep_best: bool = False
    """Keep the checkpoint with the lowest `eval_loss` beside the newest. All of them must be validated:
    `checkpoint_every` is a multiple of `eval_every`."""
    final_model: Literal["last", "best"] = "last"
    """Which weights become `model/`: those after the last step, or those that `keep_best` kept."""
    loggers: tuple[Literal["tensorboard", "mlflow", "prometheus"], ...] = ()
    """Where rows of `metrics.jsonl` go besides. `tensorboard`: event files in `tensorboard/`; `mlflow`:
    `MLFLOW_TRACKING_URI`, else `mlflow.db` in the output (`pip install 'llmray[mlflow]'`); `prometheus`: gauges among
    the metrics that Ray exports."""

    @model_validator(mode="after")
    def one_length(self) -> "Train":
        if self.steps is not None and self.epochs is not None:
            raise ValueError("give steps or epochs, not both")
        return self

    @model_validator(mode="after")
    def best_is_known(self) -> "Train":
        if self.final_model == "best" and not self.keep_best:
            raise ValueError("final_model: best needs keep_best: true")
        if self.keep_best and self.checkpoint_every and self.checkpoint_every % (self.eval_every or math.inf):
            raise ValueError(
                f"keep_best: checkpoint_every ({self.checkpoint_every}) must be a multiple of eval_every"
                f" ({self.eval_every}), so that every checkpoint is validated"
            )
        return self

    @model_validator(mode="after")
    def batch_divides(self) -> "Train":
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size ({self.batch_size}) must be a multiple of accumulate ({self.accumulate})")
        return self

    @model_validator(mode="after")
    def keys_of_the_optimizer(self) -> "Train":
        if self.momentum is not None and self.optimizer not in ("sgd", "muon"):
            raise ValueError(f"momentum is a key of optimizer: sgd and muon, not of {self.optimizer}; remove it")
        return self

    @model_validator(mode="after")
    def keys_of_the_schedule(self) -> "Train":
        for key, schedule in {"decay_every": "step", "decay_factor": "step", "decay_share": "wsd"}.items():
            if getattr(self, key) is not None and self.schedule != schedule:
                raise ValueError(f"{key} is a key of schedule: {schedule}, not of {self.schedule}; remove it")
        if self.schedule == "step" and self.decay_every is None:
            raise ValueError("schedule: step needs decay_every, the steps between its drops")
        return self

    @model_validator(mode="after")
    def patience_counts_validations(self) -> "Train":
        if self.patience and not self.eval_every:
            raise ValueError("patience counts validations; give eval_every, the steps between them")
        return self


class LocalSGD(Section):
    inner_steps: int = Field(500, ge=1)
    """Steps that each worker takes alone between two outer ones."""
    learning_rate: float = Field(0.7, gt=0)
    """Of the outer step: the share of the workers' mean way that is gone."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Of the outer step (Nesterov)."""


class Scale(Section):
    workers: int = Field(1, ge=1)
    """Training workers; each learns from its own part of every batch. One alone splits nothing."""
    min_workers: int | None = Field(None, ge=1)
    """Fewest workers with which a run goes on after a machine was lost, and with which it begins. Batches stay the
    same, so `batch_size` must be a multiple of every number between, and each row of an epoch is still learned from
    once, so `data.train` must be prepared. null: wait for all `workers`."""
    parallel: Literal["ddp", "fsdp", "local_sgd"] = "ddp"
    """How several workers split the work. `ddp`: each holds the whole model, gradients are exchanged in every step;
    `fsdp`: each keeps its share of weights, gradients and optimiser, and on its device whole weights exist block by
    block only (in the host's memory each has all of them as it starts, the optimiser's state too as it resumes, and the
    first one as it saves); `local_sgd` (DiLoCo, https://arxiv.org/abs/2311.08105): each trains alone for some steps,
    then all meet in one outer step, for slow networks."""
    local_sgd: LocalSGD | None = None
    """How often workers meet, and their outer step; for `parallel: local_sgd`."""
    cpus_per_worker: float = Field(1, gt=0)
    """CPUs that Ray reserves for a worker."""
    gpus_per_worker: float = Field(0, ge=0)
    """GPUs that Ray reserves for a worker."""
    address: str | None = None
    """Ray cluster to join (`auto`, `HOST:PORT`, `ray://…`); null starts one on this machine."""
    max_failures: int = Field(3, ge=0)
    """Times that a run resumes from its newest checkpoint after a worker died."""

    @model_validator(mode="after")
    def keys_of_the_split(self) -> "Scale":
        if self.local_sgd and self.parallel != "local_sgd":
            raise ValueError(f"local_sgd: are keys of parallel: local_sgd, not of {self.parallel}; remove them")
        return self

    @model_validator(mode="after")
    def fewer_workers_can_go_on(self) -> "Scale":
        if self.min_workers is None:
            return self
        if self.min_workers >= self.workers:
            raise ValueError(f"min_workers ({self.min_workers}) must be below workers ({self.workers}); or remove it")
        if self.parallel == "local_sgd":
            raise ValueError(
                "min_workers: what workers learn alone depends on how many they are; remove it, or use parallel: ddp"
            )
        if self.max_failures == 0:
            raise ValueError("min_workers: going on after a loss is a restart, which max_failures: 0 forbids; raise it")
        return self

    @property
    def counts(self) -> range:
        """Numbers of workers that a run may have."""
        return range(self.min_workers or self.workers, self.workers + 1)

    @property
    def meetings(self) -> LocalSGD:
        """The keys of `local_sgd`, or their defaults."""
        return self.local_sgd or LocalSGD()

    @property
    def in_process(self) -> bool:
        """Whether the program itself does the work: one worker on a CPU here that nobody is to start again."""
        return self.workers == 1 and self.max_failures == 0 and not self.gpus_per_worker and self.address is None
