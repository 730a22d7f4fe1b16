"""Answer as an assistant: conversations in, the assistant's next message out.  It does not know who asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from jinja2 import TemplateError
from torch.nn.functional import cross_entropy

from llmray.corpus.record import Columns, Conversation, Record
from llmray.job.errors import DataError, JobError, RequestError
from llmray.tasks.base import Answer, Processor, Request, Tensors
from llmray.tasks.causal_lm import CausalLanguageModel
from llmray.tasks.generating import fitting
from llmray.tasks.metrics import exact_match, perplexity, unigram_nll
from llmray.tasks.parameters import ChatParameters, judged
from llmray.tasks.tensors import ids_and_mask, padded

if TYPE_CHECKING:  # workers that only read need no model's code, whose import takes seconds
    from transformers import PreTrainedModel

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'] | capitalize }}:\n{{ message['content'] }}"
    "{{ eos_token if message['role'] == 'assistant' else '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}Assistant:\n{% endif %}"
)
"""For tokenizers without one: plain words, so that no tokens need be added, and an end token after each answer."""

Messages = Sequence[dict[str, str]]
SHORT = ({"role": "user", "content": "0"}, {"role": "assistant", "content": "1"})
"""A conversation to try templates on."""


class Told(NamedTuple):
    """A conversation's tokens, and which of them the assistant says."""

    ids: list[int]
    said: list[int]


class Chat(CausalLanguageModel):
    """Inputs `{"messages": [{"role", "content"}]}`; answers as `causal_lm`'s, `generated_text` being the next message.

    The tokenizer's chat template decides how a conversation reads; one without takes `TEMPLATE`, saved with it.
    """

    name: ClassVar[str] = "chat"
    record: ClassVar[type[Record]] = Conversation
    headline: ClassVar[str] = "perplexity"

    def __init__(self, options: Any, processor: Processor, seed: int = 0, **loss: Any) -> None:
        super().__init__(options, processor, seed, **loss)
        if not processor.tokenizer.is_fast:
            raise JobError("model.tokenizer: tells no places of tokens in a text (no tokenizer.json), which chat needs")
        if processor.tokenizer.chat_template is None:
            processor.tokenizer.chat_template = TEMPLATE
        if not any(self.tell(SHORT).said):
            raise JobError(
                "model.tokenizer: its chat template does not begin answers as its generation prompt does, so they"
                " cannot be told from the rest; mend chat_template.jinja"
            )

    def render(self, messages: Messages, prompt: bool = False) -> str:
        """A conversation as text; `prompt` opens the assistant's next message."""
        template = self.processor.tokenizer.apply_chat_template
        return str(template(list(messages), tokenize=False, add_generation_prompt=prompt))

    def tell(self, messages: Messages) -> Told:
        """Tokens of a conversation.  The assistant says what a message adds to the prompt before it, its end included.

        A message that the template tells differently once others follow it (as some do with thoughts) is not learned.
        """
        text = self.render(messages)
        spans = []
        for at, message in enumerate(messages):
            if message["role"] == "assistant" and at:
                before, after = self.render(messages[:at], prompt=True), self.render(messages[: at + 1])
                if after.startswith(before) and text.startswith(after):
                    spans.append((len(before), len(after)))
        out = self.processor.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        said = [int(any(a < last <= b for a, b in spans)) for _, last in out["offset_mapping"]]
        return Told(out["input_ids"], said)

    def encode(self, rows: Columns) -> Columns:
        """Conversations cut to `max_length`; those in which the assistant then says nothing are left out."""
        cut = [self._cut(self._judged(messages)) for messages in rows["messages"]]
        kept = [told for told in cut if any(told.said)]
        return {"input_ids": [told.ids for told in kept], "said": [told.said for told in kept]}

    def _judged(self, messages: Messages) -> Told:
        try:
            return self.tell(messages)
        except TemplateError as error:
            roles = ", ".join(message["role"] for message in messages)
            raise DataError(f"a conversation ({roles}) does not fit the tokenizer's chat template: {error}") from None

    def _cut(self, told: Told) -> Told:
        most = self.options.max_length
        return Told(told.ids[:most], told.said[:most])

    def collate(self, features: Columns) -> Tensors:
        batch = ids_and_mask(features["input_ids"], self._pad)
        said = padded(features["said"], 0).bool()
        said[:, 0] = False  # nothing comes before it
        return batch | {"labels": torch.where(said, batch["input_ids"], -100)}

    def prepare(self, model: PreTrainedModel, request: Request) -> tuple[ChatParameters, list[int]]:
        parameters, messages = judged(ChatParameters, request.parameters), request.inputs["messages"]
        for place, message in enumerate(messages):
            _require_message(message, f"inputs[{place}]")
        if not messages or messages[-1]["role"] == "assistant":
            raise RequestError("inputs: must end with a message that the assistant is to answer")
        try:
            text = self.render(messages, prompt=True)
        except TemplateError as error:
            raise RequestError(f"inputs: do not fit the model's chat template: {error}") from None
        ids = self.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        return fitting(model, parameters, ids, "inputs"), ids

    @cached_property
    def end(self) -> int:
        """The token with which the template closes an answer."""
        told = self.tell(SHORT)
        special = set(self.processor.tokenizer.all_special_ids)
        closing = [i for i, said in zip(told.ids, told.said, strict=True) if said and i in special]
        return closing[-1] if closing else int(self.processor.tokenizer.eos_token_id)

    def measure(self, model: PreTrainedModel, rows: Columns) -> list[dict[str, Any]]:
        """What the assistant says in each conversation, as far as it is read: negative log-likelihood (nats)."""
        found = [self._heard(model, self._judged(messages)) for messages in rows["messages"]]
        if not self.options.exact_match:
            return found
        lasts = list(map(last_answer, rows["messages"]))
        told = iter(self.answer(model, [Request({"messages": list(last[0])}, {}) for last in lasts if last]))
        return [one | _matched(next(told), last[1]) if last else one for one, last in zip(found, lasts, strict=True)]

    def _heard(self, model: PreTrainedModel, told: Told) -> dict[str, Any]:
        read = self._cut(told)
        batch = self.collate({"input_ids": [read.ids], "said": [read.said]})
        labels = batch.pop("labels")[0, 1:].to(model.device)
        with torch.inference_mode():
            logits = model(**{k: v.to(model.device) for k, v in batch.items()}).logits[0, :-1].float()
        nll = cross_entropy(logits, labels, ignore_index=-100, reduction="sum").item()
        return {"nll": nll, "tokens": int((labels != -100).sum()), "cut": len(read.ids) < len(told.ids)}

    def summarise(self, measurements: Sequence[dict[str, Any]]) -> dict[str, float]:
        """Perplexity of what the assistant says; `cut` is the percentage of conversations that were too long."""
        nll, tokens = sum(m["nll"] for m in measurements), sum(m["tokens"] for m in measurements)
        matches = [m["exact_match"] for m in measurements if "exact_match" in m]
        return self._metrics(nll, tokens, [m["cut"] for m in measurements], matches)

    def _metrics(self, nll: float, tokens: int, cut: Sequence[bool], matches: Sequence[float]) -> dict[str, float]:
        found = {"perplexity": perplexity(nll, tokens), "loss": nll / max(tokens, 1), "cut": _percent(cut)}
        return found | {"exact_match": _percent(matches)} if self.options.exact_match else found

    def baseline(self, train: Columns, held_out: Columns) -> dict[str, float]:
        """A unigram model of what assistants say; its answer is always their most frequent last one."""
        known, asked = ([self._judged(messages) for messages in rows["messages"]] for rows in (train, held_out))
        nll, tokens = unigram_nll(self._said(known), self._said(asked), len(self.processor.tokenizer))
        before, after = (list(filter(None, map(last_answer, rows["messages"]))) for rows in (train, held_out))
        usual = Counter(answer for _, answer in before).most_common(1)[0][0] if before else ""
        matches = [exact_match(usual, [answer]) for _, answer in after]
        return self._metrics(nll, tokens, [len(told.ids) > self.options.max_length for told in asked], matches)

    def _said(self, conversations: Iterable[Told]) -> list[int]:
        read = map(self._cut, conversations)
        return [i for told in read for i, said in zip(told.ids, told.said, strict=True) if said]


def last_answer(messages: Messages) -> tuple[Messages, str] | None:
    """What comes before the assistant's last message, and that message; None where it says nothing."""
    places = [at for at, message in enumerate(messages) if at and message["role"] == "assistant"]
    return (messages[: places[-1]], messages[places[-1]]["content"]) if places else None


def _matched(told: Answer | RequestError, reference: str) -> dict[str, Any]:
    """An answer beside what should have been said; none to a conversation that is too long to be answered."""
    answer = "" if isinstance(told, RequestError) else told["generated_text"].strip()
    return {"answer": answer, "reference": reference, "exact_match": exact_match(answer, [reference])}


def _percent(found: Sequence[float]) -> float:
    return 100 * sum(found) / max(len(found), 1)


def _require_message(message: Any, where: str) -> None:
    if not isinstance(message, dict) or not all(isinstance(message.get(key), str) for key in ("role", "content")):
        raise RequestError(f"{where}: must be an object with role and content, both strings")
    if any("\ud800" <= character <= "\udfff" for character in message["content"]):
        raise RequestError(f"{where}.content: is not valid Unicode: it holds half a surrogate pair")
