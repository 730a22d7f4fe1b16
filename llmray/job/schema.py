"""The job file as one frozen value: every key, its meaning, its bounds and its default.

It does not read files, and nothing heavy is imported here.  A field's docstring is its only documentation:
the command line's help, the JSON schema and `docs/jobs.md` all come from it.
"""

import math
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from llmray.job.data import Data
from llmray.job.section import Section

TaskName = Literal[
    "causal_lm", "masked_lm", "span_corruption", "classification", "qa", "translation", "captioning", "chat"
]
LANGUAGE = ("causal_lm", "masked_lm", "span_corruption")
"""Tasks whose corpus is documents."""
Packing = Literal["contiguous", "documents"]


# --- task -----------------------------------------------------------------------------------------------------------


class CausalLM(Section):
    """Predict the next token."""

    name: Literal["causal_lm"] = "causal_lm"
    seq_len: int = Field(128, ge=8)
    """Tokens in a block; documents are packed into blocks of this length."""
    packing: Packing = "contiguous"
    """How documents fill blocks. `contiguous`: joined and cut, attention crosses from one into the next; `documents`:
    kept whole where they fit (best-fit, https://arxiv.org/abs/2404.10830), attention and positions stay inside each."""


class MaskedLM(Section):
    """Predict masked tokens (BERT, https://arxiv.org/abs/1810.04805)."""

    name: Literal["masked_lm"] = "masked_lm"
    seq_len: int = Field(128, ge=8)
    """Tokens in a block; documents are packed into blocks of this length."""
    packing: Packing = "contiguous"
    """How documents fill blocks. `contiguous`: joined and cut, attention crosses from one into the next; `documents`:
    kept whole where they fit (best-fit, https://arxiv.org/abs/2404.10830), attention and positions stay inside each."""
    mask_share: float = Field(0.15, gt=0, lt=1)
    """Share of tokens that the model must predict."""
    whole_word: bool = False
    """Hide all tokens of a word, or none: a word cannot be guessed from its own rest."""


class SpanCorruption(Section):
    """Say what was cut out of a text (T5, https://arxiv.org/abs/1910.10683)."""

    name: Literal["span_corruption"] = "span_corruption"
    seq_len: int = Field(128, ge=8)
    """Tokens in a block, before spans are cut out of it; documents are joined and cut into blocks of this length."""
    noise_density: float = Field(0.15, gt=0, lt=1)
    """Share of tokens that are cut out."""
    mean_span_tokens: float = Field(3.0, ge=1)
    """Mean length of what is cut out in one place."""


class Classification(Section):
    """Put a text into a class, or give it a number."""

    name: Literal["classification"] = "classification"
    max_length: int = Field(256, ge=8)
    """Tokens of a text; a longer one is cut."""
    labels: tuple[str, ...] = ()
    """The classes, in the order of the model's outputs; none given: those found in `data.train`, sorted."""
    regression: bool = False
    """Labels are numbers, and the model learns to tell the number (mean squared error)."""

    @model_validator(mode="after")
    def labels_are_classes(self) -> "Classification":
        if self.regression and self.labels:
            raise ValueError("labels are for classes; remove them, or regression: true")
        if len(self.labels) == 1 or len(set(self.labels)) < len(self.labels):
            raise ValueError(f"labels ({', '.join(self.labels)}) must be two or more different classes")
        return self


class QuestionAnswering(Section):
    """Find the span of a context that answers a question."""

    name: Literal["qa"] = "qa"
    max_length: int = Field(384, ge=16)
    """Tokens of question and context together; a longer context is split into windows."""
    stride: int = Field(128, ge=0)
    """Tokens that neighbouring windows share."""
    max_answer_tokens: int = Field(30, ge=1)
    """Longest answer that is considered, in tokens."""
    no_answer: bool = False
    """Some questions have no answer in their context (SQuAD 2.0, https://arxiv.org/abs/1806.03822), and the model may
    say so, with an empty answer. Metrics are then also told apart by whether there is one."""
    null_threshold: float = 0.0
    """With `no_answer`: the answer is empty when the log-odds of none against the best span are above this."""

    @model_validator(mode="after")
    def threshold_has_a_use(self) -> "QuestionAnswering":
        if self.null_threshold and not self.no_answer:
            raise ValueError("null_threshold judges empty answers; set no_answer: true, or remove it")
        return self

    @model_validator(mode="after")
    def stride_leaves_room_for_the_question(self) -> "QuestionAnswering":
        if self.stride * 2 > self.max_length:
            raise ValueError(f"stride ({self.stride}) must be at most half of max_length ({self.max_length})")
        return self


class Translation(Section):
    """Say the same in another language."""

    name: Literal["translation"] = "translation"
    max_source_tokens: int = Field(128, ge=4)
    """Longer sources are cut to this length."""
    max_target_tokens: int = Field(128, ge=4)
    """Longest translation, in training and in answers."""
    beams: int = Field(1, ge=1)
    """Beams of the search when answering; 1 is greedy."""


class Captioning(Section):
    """Describe a picture."""

    name: Literal["captioning"] = "captioning"
    max_tokens: int = Field(64, ge=4)
    """Longest caption, in training and in answers."""
    beams: int = Field(1, ge=1)
    """Beams of the search when answering; 1 is greedy."""


class Chat(Section):
    """Answer as an assistant, learned from conversations; only the assistant's answers are learned."""

    name: Literal["chat"] = "chat"
    max_length: int = Field(512, ge=16)
    """Tokens of a conversation; a longer one is cut at its end, and left out where no answer remains."""
    exact_match: bool = False
    """When evaluating, also let the model give each last answer (greedy), and count those that are right."""


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


TaskSection = Annotated[
    CausalLM | MaskedLM | SpanCorruption | Classification | QuestionAnswering | Translation | Captioning | Chat,
    Field(discriminator="name"),
]
TaskOptions = Annotated[TaskSection, BeforeValidator(_named, json_schema_input_type=TaskName | TaskSection)]


# --- model ----------------------------------------------------------------------------------------------------------


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


# --- train, scale, tune -----------------------------------------------------------------------------------------------


class LoRA(Section):
    rank: int = Field(8, ge=1)
    """Rank of the additions."""
    alpha: float = Field(16, gt=0)
    """The additions are multiplied by alpha / rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the additions' inputs that is dropped in training."""
    targets: tuple[str, ...] | None = Field(None, min_length=1)
    """Names of the matrices that get additions, as `q_proj`; null: all in the model's blocks."""


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
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of each target that is spread over all classes alike; validation does without."""
    chunked_loss: bool | Literal["auto"] = "auto"
    """`causal_lm`: take loss and gradient of some tokens at a time, so that no worker ever holds the scores of all
    words at all places; auto: where those would take more than 1 GiB."""
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
    parallel: Literal["ddp", "fsdp", "local_sgd"] = "ddp"
    """How several workers split the work. `ddp`: each holds the whole model, gradients are exchanged in every step;
    `fsdp`: each keeps its share of weights, gradients and optimiser, and whole weights exist block by block only;
    `local_sgd` (DiLoCo, https://arxiv.org/abs/2311.08105): each trains alone for some steps, then all meet in one outer
    step, for slow networks."""
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

    @property
    def in_process(self) -> bool:
        """Whether the program itself does the work: one worker on a CPU here that nobody is to start again."""
        return self.workers == 1 and self.max_failures == 0 and not self.gpus_per_worker and self.address is None


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


# --- evaluate, serve --------------------------------------------------------------------------------------------------


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


class Endpoint(Section):
    model: str
    """A model folder, hub id or registry reference."""
    task: TaskOptions
    """What the model was trained for; decides the route."""
    min_replicas: int = Field(1, ge=1)
    """Fewest copies of the model."""
    max_replicas: int = Field(2, ge=1)
    """Most copies of the model; Serve adds them under load."""
    max_batch_size: int = Field(16, ge=1)
    """Requests that are answered in one pass."""
    batch_wait_s: float = Field(0.005, ge=0)
    """Time that a request waits for others to join its batch."""
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
        share = self.train.accumulate * self.scale.workers
        if self.train.batch_size % share:
            raise ValueError(
                f"train.batch_size ({self.train.batch_size}) must be a multiple of scale.workers × train.accumulate"
                f" ({self.scale.workers} × {self.train.accumulate})"
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
        rounds = (self.scale.local_sgd or LocalSGD()).inner_steps
        for key in ("eval_every", "checkpoint_every"):
            if (every := getattr(self.train, key)) and every % rounds:
                raise ValueError(
                    f"train.{key} ({every}) must be a multiple of scale.local_sgd.inner_steps ({rounds}): between two"
                    " meetings there is no model of all workers"
                )
        return self

    @model_validator(mode="after")
    def loss_suits_the_task(self) -> "Job":
        if self.task and self.train.chunked_loss is True and self.task.name != "causal_lm":
            raise ValueError(f"train.chunked_loss: is for causal_lm, not for {self.task.name}; remove it")
        if self.task and self.train.label_smoothing and self.task.name == "qa":
            raise ValueError("train.label_smoothing: qa learns where an answer is, and has no classes; remove it")
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
