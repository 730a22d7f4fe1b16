"""Find the span of a context that answers a question.  It does not know where contexts come from."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch.nn.functional import cross_entropy

from llmray.corpus.record import Columns, Question, Record
from llmray.job.errors import RequestError
from llmray.tasks.base import Answer, Request, Task, Tensors
from llmray.tasks.metrics import exact_match, normalised, token_f1
from llmray.tasks.parameters import AnswerParameters, judged
from llmray.tasks.tensors import ids_and_mask, read

if TYPE_CHECKING:  # workers that only read need no model's code, whose import takes seconds
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Window:
    """A question with one stretch of its context. `offsets` are characters of the context, None outside it."""

    row: int
    ids: list[int]
    offsets: list[tuple[int, int] | None]


class ExtractiveQA(Task):
    """Inputs `{"question", "context"}`; answers `{"candidates": [{"answer", "score", "start", "end"}]}`, best first."""

    name: ClassVar[str] = "qa"
    record: ClassVar[type[Record]] = Question
    auto_class: ClassVar[str] = "AutoModelForQuestionAnswering"
    headline: ClassVar[str] = "exact_match"

    def encode(self, rows: Columns) -> Columns:
        """Windows with the answer's first and last token; both 0 (the first special token) where it is outside."""
        windows = self._windows(list(rows["question"]), list(rows["context"]))
        spans = [_span(window, rows["answers"][window.row]) for window in windows]
        return {
            "input_ids": [window.ids for window in windows],
            "start": [start for start, _ in spans],
            "end": [end for _, end in spans],
        }

    def collate(self, features: Columns) -> Tensors:
        batch = ids_and_mask(features["input_ids"], self._pad)
        spans = [torch.as_tensor([int(i) for i in features[name]]) for name in ("start", "end")]
        return batch | {"labels": torch.stack(spans, 1)}

    def loss(self, model: torch.nn.Module, batch: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
        """Cross-entropy of the first and the last token, summed; each row has two targets."""
        labels = batch["labels"]
        out = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        first = cross_entropy(out.start_logits.float(), labels[:, 0], reduction="sum")
        last = cross_entropy(out.end_logits.float(), labels[:, 1], reduction="sum")
        return first + last, torch.tensor(labels.numel(), device=labels.device)

    def answer(self, model: PreTrainedModel, requests: Sequence[Request]) -> list[Answer | RequestError]:
        answers: list[Answer | RequestError] = []
        good: list[tuple[int, AnswerParameters]] = []
        for i, request in enumerate(requests):
            try:
                good.append((i, self._judged(request)))
                answers.append({})
            except RequestError as error:
                answers.append(error)
        if good:
            rows = [requests[i].inputs for i, _ in good]
            spans = self._spans(
                model, [r["question"] for r in rows], [r["context"] for r in rows], [p for _, p in good]
            )
            for (i, _), row, found in zip(good, rows, spans, strict=True):
                answers[i] = {"candidates": [_told(row["context"], span) for span in found]}
        return answers

    def _judged(self, request: Request) -> AnswerParameters:
        for field in ("question", "context"):
            if not request.inputs[field].strip():
                raise RequestError(f"inputs.{field}: is empty")
        question = self.processor.tokenizer(request.inputs["question"], add_special_tokens=False)["input_ids"]
        if (most := self.options.max_length // 2) < len(question):
            raise RequestError(f"inputs.question: {len(question)} tokens; this model reads at most {most}")
        parameters: AnswerParameters = judged(AnswerParameters, request.parameters)
        return parameters

    def _windows(self, questions: list[str], contexts: list[str]) -> list[Window]:
        tokenizer = self.processor.tokenizer
        out = tokenizer(
            [question.strip() for question in questions],
            contexts,
            truncation="only_second",
            max_length=self.options.max_length,
            stride=self.options.stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        rows = out["overflow_to_sample_mapping"]
        return [
            Window(row, ids, [o if s == 1 else None for o, s in zip(offsets, out.sequence_ids(i), strict=True)])
            for i, (row, ids, offsets) in enumerate(zip(rows, out["input_ids"], out["offset_mapping"], strict=True))
        ]

    def _spans(
        self, model: PreTrainedModel, questions: list[str], contexts: list[str], parameters: list[AnswerParameters]
    ) -> list[list[tuple[float, int, int]]]:
        """For each question its best spans: probability among all spans considered, first and last character + 1.

        With `no_answer`, an empty one comes first where none is likelier by `null_threshold` (log-odds) than the best;
        none is as likely as in the window where it is least so.
        """
        windows = self._windows(questions, contexts)
        ends = read(model, [window.ids for window in windows], self._pad, _ends)
        found: list[list[tuple[float, int, int]]] = [[] for _ in questions]
        none = [float("inf" if self.options.no_answer else "-inf")] * len(questions)
        for window, (first, last) in zip(windows, ends, strict=True):
            p = parameters[window.row]
            longest = p.max_answer_len or self.options.max_answer_tokens
            spans, nothing = _best(window, first, last, longest, 4 * p.top_k, self.options.no_answer)
            found[window.row] += spans
            none[window.row] = min(none[window.row], nothing)
        return [
            self._with_none(_ranked(spans, p.top_k), math.exp(nothing))[: p.top_k]
            for spans, nothing, p in zip(found, none, parameters, strict=True)
        ]

    def _with_none(self, spans: list[tuple[float, int, int]], none: float) -> list[tuple[float, int, int]]:
        best = spans[0][0] if spans else 0.0
        return [(none, 0, 0), *spans] if none > best * math.exp(self.options.null_threshold) else spans

    def measure(self, model: PreTrainedModel, rows: Columns) -> list[dict[str, Any]]:
        one = [AnswerParameters()] * len(rows["question"])
        spans = self._spans(model, list(rows["question"]), list(rows["context"]), one)
        told = [context[s[0][1] : s[0][2]] if s else "" for context, s in zip(rows["context"], spans, strict=True)]
        return self._judge(told, rows)

    def _judge(self, told: Sequence[str], rows: Columns) -> list[dict[str, Any]]:
        return [
            {"question": question, "answer": answer, "references": (texts := self._references(references)),
             "exact_match": exact_match(answer, texts), "f1": token_f1(answer, texts)}
            for question, answer, references in zip(rows["question"], told, rows["answers"], strict=True)
        ]  # fmt: skip

    def _references(self, answers: Sequence[dict[str, Any]]) -> list[str]:
        """SQuAD 2.0's script leaves answers out that its normalisation makes empty, SQuAD 1.1's does not."""
        return [a["text"] for a in answers if not self.options.no_answer or normalised(a["text"])]

    def summarise(self, measurements: Sequence[dict[str, Any]]) -> dict[str, float]:
        """In percent; with `no_answer` also of questions with and without an answer, as SQuAD 2.0's script does."""
        found = _mean(measurements)
        for kind in ("HasAns", "NoAns") if self.options.no_answer else ():
            some = [m for m in measurements if bool(m["references"]) == (kind == "HasAns")]
            found |= {f"{kind}_{name}": value for name, value in _mean(some).items()} if some else {}
        return found

    def baseline(self, train: Columns, held_out: Columns) -> dict[str, float]:
        """The most likely span by length: as many words as answers most often have, at their median place.

        With `no_answer` and mostly questions without one: none.
        """
        if self.options.no_answer and 2 * sum(len(answers) > 0 for answers in train["answers"]) < len(train["answers"]):
            return self.summarise(self._judge([""] * len(held_out["context"]), held_out))
        lengths: Counter[int] = Counter()
        places = []
        for context, answers in zip(train["context"], train["answers"], strict=True):
            for answer in list(answers)[:1]:
                lengths[len(answer["text"].split())] += 1
                places.append(len(context[: answer["start"]].split()) / max(len(context.split()), 1))
        words, place = (
            lengths.most_common(1)[0][0] if lengths else 1,
            sorted(places)[len(places) // 2] if places else 0.0,
        )
        told = []
        for context in held_out["context"]:
            all_words = context.split()
            at = min(int(place * len(all_words)), max(len(all_words) - words, 0))
            told.append(" ".join(all_words[at : at + words]))
        return self.summarise(self._judge(told, held_out))

    @property
    def _pad(self) -> int:
        return int(self.processor.tokenizer.pad_token_id)


def _span(window: Window, answers: Sequence[dict[str, Any]]) -> tuple[int, int]:
    """First and last token of the first answer that lies wholly in the window, else (0, 0)."""
    inside = [(i, o) for i, o in enumerate(window.offsets) if o and o[1] > o[0]]
    for answer in answers:
        start, end = answer["start"], answer["start"] + len(answer["text"])
        if inside and inside[0][1][0] <= start and end <= inside[-1][1][1]:
            covered = [i for i, (a, b) in inside if b > start and a < end]
            if covered:
                return covered[0], covered[-1]
    return 0, 0


def _ends(out: Any, _ids: torch.Tensor) -> torch.Tensor:
    """Logits of the first and the last token, (rows, 2, width)."""
    return torch.stack([out.start_logits, out.end_logits], 1)


def _mean(measurements: Sequence[dict[str, Any]]) -> dict[str, float]:
    count = max(len(measurements), 1)
    return {name: 100 * sum(m[name] for m in measurements) / count for name in ("exact_match", "f1")}


def _best(
    window: Window, first: torch.Tensor, last: torch.Tensor, longest: int, count: int, no_answer: bool
) -> tuple[list[tuple[float, int, int]], float]:
    """The window's best spans within the context: log-probability, first character, last character + 1; and that of no
    answer (the first special token), which is one of the possibilities if `no_answer`."""
    places = [i for i, o in enumerate(window.offsets) if o and o[1] > o[0]]
    possible = torch.tensor([0, *places] if no_answer else places, dtype=torch.long)
    normaliser = (first[possible].logsumexp(0) + last[possible].logsumexp(0)).item()
    none = (first[0] + last[0]).item() - normaliser if no_answer else -math.inf
    if not places:
        return [], none
    at = torch.tensor(places)
    scores = first[at][:, None] + last[at][None]
    allowed = torch.ones_like(scores, dtype=torch.bool).triu().tril(longest - 1)
    values, flat = scores.masked_fill(~allowed, -torch.inf).flatten().topk(min(count, int(allowed.sum())))
    found = []
    for value, k in zip(values.tolist(), flat.tolist(), strict=True):
        i, j = divmod(k, len(places))
        start, end = window.offsets[places[i]], window.offsets[places[j]]
        assert start
        assert end
        found.append((value - normaliser, start[0], end[1]))
    return found, none


def _ranked(spans: list[tuple[float, int, int]], top_k: int) -> list[tuple[float, int, int]]:
    """Distinct spans, best first, scores as probabilities."""
    seen: dict[tuple[int, int], float] = {}
    for score, start, end in sorted(spans, reverse=True):
        seen.setdefault((start, end), score)
    return [(float(torch.tensor(score).exp()), *place) for place, score in list(seen.items())[:top_k]]


def _told(context: str, span: tuple[float, int, int]) -> Answer:
    """A span as a user reads it; a byte-level token's leading space is no part of the answer."""
    score, start, end = span
    text = context[start:end]
    start += len(text) - len(text.lstrip())
    return {"answer": context[start : start + len(text.strip())], "score": score, "start": start,
            "end": start + len(text.strip())}  # fmt: skip
