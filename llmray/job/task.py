"""The `task` section of a job file: what a model is to learn, each task with its own options.

It does not know how any of them is done.  As in `schema`, a field's docstring is its only documentation.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from llmray.job.section import Section

TaskName = Literal[
    "causal_lm", "masked_lm", "span_corruption", "classification", "qa", "translation", "captioning", "chat"
]
LANGUAGE = ("causal_lm", "masked_lm", "span_corruption")
"""Tasks whose corpus is documents."""
Packing = Literal["contiguous", "documents"]


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
