"""The job file as one frozen value: every key, its meaning, its bounds and its default.

It does not read files, and nothing heavy is imported here.  A field's docstring is its only documentation:
the command line's help, the JSON schema and `docs/jobs.md` all come from it.
"""

import math
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from llmray.job.data import Data
from llmray.job.section import Section
from llmray.job.task import LANGUAGE, TaskOptions
from llmray.job.training import CHUNKED, Scale, Train

EngineName = Literal["auto", "torch", "ctranslate2", "onnx"]


class Model(Section):
    from_: str = Field(alias="from")
    """A hub id, a local folder in Hugging Face layout, `registry:NAME@champion`, or `new:PRESET` for random weights."""
    tokenizer: str | None = None
    """A folder or hub id whose tokenizer is used instead of the model's own; with `new:` and none given, a tokenizer
    is trained on the corpus."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    trust_remote_code: bool = False
    """Run code that comes with the model. Only for models you have read."""


class Range(Section):
    min: float
    """Lower end."""
    max: float
    """Upper end."""
    log: bool = False
    """Draw evenly in the logarithm."""

    @model_validator(mode="after")
    def ordered(self) -> "Range":
        if not self.min < self.max:
            raise ValueError(f"min ({self.min}) must be below max ({self.max})")
        if self.log and self.min <= 0:
            raise ValueError(f"with log: true, min ({self.min}) must be above 0")
        return self


def _space_kind(value: Any) -> str:
    return "choices" if isinstance(value, (list, tuple)) else "range"


Space = Annotated[
    Annotated[tuple[Any, ...], Field(min_length=1), Tag("choices")] | Annotated[Range, Tag("range")],
    Discriminator(_space_kind),
]


class Tune(Section):
    space: dict[str, Space] = Field(min_length=1)
    """Dotted job key → a list of choices or a range: `{train.learning_rate: {min: 1e-4, max: 1e-2, log: true}}`."""
    trials: int = Field(8, ge=1)
    """Job variants that are tried."""
    concurrent: int = Field(2, ge=1)
    """Trials that run at once."""
    metric: str = "eval_loss"
    """Reported metric that is compared."""
    mode: Literal["min", "max"] = "min"
    """Whether a smaller or a larger metric is better."""
    grace_steps: int = Field(1, ge=1)
    """Steps before ASHA may stop a trial."""
    reduction_factor: int = Field(3, ge=2)
    """ASHA keeps one in this many trials at each rung (https://arxiv.org/abs/1810.05934)."""
    seed: int = 0
    """Seeds the draws."""


class Bound(Section):
    min: float | None = None
    """The metric must be at least this."""
    max: float | None = None
    """The metric must be at most this."""


class Evaluate(Section):
    limit: int | None = Field(None, ge=1)
    """Score at most this many rows."""
    batch_size: int = Field(32, ge=1)
    """Rows that the model answers at once."""
    thresholds: dict[str, Bound] = Field({})
    """Metric → bounds; a miss ends with exit code 3."""
    tolerance_percent: float = Field(1.0, ge=0)
    """What a form that `export` makes may lose of the task's headline metric, in percent of the model's own. One that
    loses more is not kept, and `export` ends with exit code 3."""


class Endpoint(Section):
    model: str
    """A model folder, hub id or registry reference."""
    tokenizer: str | None = None
    """As in `model`."""
    revision: str | None = None
    """As in `model`."""
    trust_remote_code: bool = False
    """As in `model`."""
    task: TaskOptions
    """What the model was trained for; decides the route."""
    name: str | None = Field(None, pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    """Last part of the route, for several models of one task: `/translate/en-de`. The first of them also answers at the
    task's own route."""
    engine: EngineName = "auto"
    """What runs the model: `torch`, or a form that `export` made and checked (`ctranslate2`, `onnx`; CPUs only).
    `auto`: the fastest, as measured by `export`, that this machine can run; else `torch`."""
    min_replicas: int = Field(1, ge=0)
    """Fewest copies of the model. 0: the last one ends when nobody has asked for `idle_s`, and the next request waits
    until a new one has started."""
    idle_s: float = Field(300, gt=0)
    """Seconds without a request after which the last copy ends, where `min_replicas` is 0."""
    max_replicas: int = Field(2, ge=1)
    """Most copies of the model; Serve adds them under load."""
    max_batch_size: int = Field(16, ge=1)
    """Requests that are answered in one pass."""
    batch_wait_s: float = Field(0.005, ge=0)
    """Most time that a request waits for others to join its batch, where as many came lately."""
    max_queued: int = Field(256, ge=1)
    """Requests that may wait for one replica; more are refused with 503."""
    cpus: float = Field(0.5, ge=0)
    """CPUs that Ray reserves for a replica."""
    gpus: float = Field(0, ge=0)
    """GPUs that Ray reserves for a replica."""

    @model_validator(mode="after")
    def replicas_ordered(self) -> "Endpoint":
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"min_replicas ({self.min_replicas}) is above max_replicas ({self.max_replicas})")
        return self

    @model_validator(mode="after")
    def forms_run_on_cpus(self) -> "Endpoint":
        if self.gpus and self.engine in ("ctranslate2", "onnx"):
            raise ValueError(f"engine: {self.engine} runs on CPUs; remove gpus, or use engine: torch")
        return self


class Limits(Section):
    requests_per_minute: int | None = Field(None, ge=1)
    """Requests that one API key may send to a route within any minute; more are refused with 429. Without keys, that
    all may send together."""
    concurrent: int | None = Field(None, ge=1)
    """Requests of one API key that may be under way at once in one replica; more are refused with 429."""
    storage: str = Field("memory", pattern=r"^(memory|rediss?://.+)$")
    """Where requests are counted: `memory`, by each replica for itself, or `redis://HOST:PORT`, by all together."""
    deadline_s: float = Field(120, gt=0)
    """Seconds within which an answer must begin; a request that still waits then is refused with 503 and never run."""


class Serve(Section):
    host: str = "127.0.0.1"
    """Address to listen on. Anything but loopback is open to whoever can reach it, and needs API keys."""
    port: int = Field(8000, ge=1, le=65535)
    """Port of every route."""
    if_port_taken: Literal["fail", "next"] = "fail"
    """When another program has the port: stop with a message, or take the next free one."""
    endpoints: tuple[Endpoint, ...] = ()
    """What to serve; one application for each."""
    keys: str | None = None
    """File of the API keys that requests must bring (`llmray keys`); none given: `keys.json` in `output`, if it exists.
    Every machine that serves must reach it."""
    limits: Limits = Limits()
    """What one caller may ask, and how long a request may wait."""


class Job(Section):
    """One job file. Sections that a verb does not use may be left out."""

    task: TaskOptions | None = None
    """A task's name, or a mapping with `name` and the task's own options."""
    model: Model | None = None
    data: Data = Data()
    train: Train = Train()
    scale: Scale = Scale()
    tune: Tune | None = None
    evaluate: Evaluate = Evaluate()
    serve: Serve = Serve()
    output: str = "runs/default"
    """Folder (any path or object-store URI) under which everything that the job writes is kept."""

    @model_validator(mode="after")
    def only_documents_are_cleaned(self) -> "Job":
        if self.data.clean and self.task and self.task.name not in LANGUAGE:
            raise ValueError("data.clean: cleans documents, for language modelling; remove it, or change the task")
        return self

    @model_validator(mode="after")
    def all_sources_have_weights_or_none(self) -> "Job":
        given = [source.weight is not None for source in self.data.train]
        if any(given) and not all(given):
            without = next(s.path for s, has in zip(self.data.train, given, strict=True) if not has)
            raise ValueError(f"data.train: {without} has no weight although others do; give every source one, or none")
        return self

    @model_validator(mode="after")
    def best_needs_validation(self) -> "Job":
        if self.train.keep_best and not self.data.eval:
            raise ValueError("train.keep_best: compares eval_loss; give data.eval")
        return self

    @model_validator(mode="after")
    def batch_divides_among_workers(self) -> "Job":
        size, passes, counts = self.train.batch_size, self.train.accumulate, self.scale.counts
        wrong = next((count for count in reversed(counts) if size % (count * passes)), None)
        if wrong == self.scale.workers:
            raise ValueError(
                f"train.batch_size ({size}) must be a multiple of scale.workers × train.accumulate ({wrong} × {passes})"
            )
        if wrong:
            raise ValueError(
                f"train.batch_size ({size}): {wrong} workers, which scale.min_workers allows, cannot share it in"
                f" {passes} passes; use a multiple of {passes * math.lcm(*counts)}, or raise scale.min_workers"
            )
        return self

    @model_validator(mode="after")
    def gpu_precision_on_gpus(self) -> "Job":
        if self.train.precision in ("tf32", "fp16") and not self.scale.gpus_per_worker:
            raise ValueError(
                f"train.precision: {self.train.precision} is for GPUs; give scale.gpus_per_worker, or use bf16 or fp32"
            )
        return self

    @model_validator(mode="after")
    def split_suits_training(self) -> "Job":
        split, train = self.scale.parallel, self.train
        if split == "fsdp" and train.optimizer in ("muon", "adafactor"):
            raise ValueError(
                f"train.optimizer: {train.optimizer} needs whole matrices, which scale.parallel: fsdp splits; use"
                " adamw, or ddp"
            )
        if split != "ddp" and train.precision == "fp16":
            raise ValueError(
                f"train.precision: fp16 skips steps, which scale.parallel: {split} cannot; use bf16, or ddp"
            )
        if split == "fsdp" and train.lora:
            raise ValueError("train.lora: leaves little to split; use scale.parallel: ddp")
        return self

    @model_validator(mode="after")
    def local_workers_meet_in_time(self) -> "Job":
        if self.scale.parallel != "local_sgd":
            return self
        rounds = self.scale.meetings.inner_steps
        for key in ("eval_every", "checkpoint_every"):
            if (every := getattr(self.train, key)) and every % rounds:
                raise ValueError(
                    f"train.{key} ({every}) must be a multiple of scale.local_sgd.inner_steps ({rounds}): between two"
                    " meetings there is no model of all workers"
                )
        return self

    @model_validator(mode="after")
    def loss_suits_the_task(self) -> "Job":
        if self.task and self.train.chunked_loss is True and self.task.name not in CHUNKED:
            raise ValueError(f"train.chunked_loss: is for {' and '.join(CHUNKED)}, not for {self.task.name}; remove it")
        if self.task and self.train.label_smoothing and self.task.name == "qa":
            raise ValueError("train.label_smoothing: qa learns where an answer is, and has no classes; remove it")
        if self.train.label_smoothing and getattr(self.task, "regression", False):
            raise ValueError("train.label_smoothing: task.regression learns numbers, and has no classes; remove one")
        return self

    @model_validator(mode="after")
    def patience_has_rows_to_judge(self) -> "Job":
        if self.train.patience and not self.data.eval:
            raise ValueError("train.patience: waits for a better eval_loss; give data.eval")
        return self

    @model_validator(mode="after")
    def lora_adds_to_a_trained_model(self) -> "Job":
        if self.train.lora and self.model and self.model.from_.startswith("new:"):
            raise ValueError(f"train.lora: adds to a trained model; {self.model.from_} has random weights")
        return self
