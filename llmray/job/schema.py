"""The job file as one frozen value: every key, its meaning, its bounds and its default.

It does not read files, and nothing heavy is imported here.  A field's docstring is its only documentation:
the command line's help, the JSON schema and `docs/jobs.md` all come from it.
"""

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
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """How the learning rate decays after warm-up."""
    warmup_steps: int = Field(0, ge=0)
    """Steps over which the learning rate rises from 0."""
    weight_decay: float = Field(0.01, ge=0)
    """AdamW's decay of weight matrices; biases and norms have none."""
    clip_norm: float | None = Field(1.0, gt=0)
    """Largest norm of the gradient; null for none."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """bf16: products in bfloat16 (autocast), weights and optimiser in fp32; auto: bf16 where every worker's hardware
    multiplies it, else fp32 (a processor that must emulate it is two hundred times slower)."""
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

    @model_validator(mode="after")
    def one_length(self) -> "Train":
        if self.steps is not None and self.epochs is not None:
            raise ValueError("give steps or epochs, not both")
        return self

    @model_validator(mode="after")
    def batch_divides(self) -> "Train":
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size ({self.batch_size}) must be a multiple of accumulate ({self.accumulate})")
        return self


class Scale(Section):
    workers: int = Field(1, ge=1)
    """Training workers; each holds the whole model (data-parallel)."""
    cpus_per_worker: float = Field(1, gt=0)
    """CPUs that Ray reserves for a worker."""
    gpus_per_worker: float = Field(0, ge=0)
    """GPUs that Ray reserves for a worker."""
    address: str | None = None
    """Ray cluster to join (`auto`, `HOST:PORT`, `ray://…`); null starts one on this machine."""
    max_failures: int = Field(3, ge=0)
    """Times that a run resumes from its newest checkpoint after a worker died."""

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
    def batch_divides_among_workers(self) -> "Job":
        share = self.train.accumulate * self.scale.workers
        if self.train.batch_size % share:
            raise ValueError(
                f"train.batch_size ({self.train.batch_size}) must be a multiple of scale.workers × train.accumulate"
                f" ({self.scale.workers} × {self.train.accumulate})"
            )
        return self
