"""`prepare`: a corpus → a store of encoded blocks, through Ray Data tasks that each commit one part.

It does not know how a part is read, cleaned or encoded (`stages`).  An interrupted run goes on with the parts that are
left; the manifest, written last, commits the store.
"""

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from llmray.corpus.contamination import Contamination
from llmray.corpus.copies import Copies, found_in
from llmray.corpus.damage import DamageError
from llmray.corpus.record import Bad
from llmray.corpus.refine import Refine
from llmray.corpus.source import MANIFEST, shards, texts
from llmray.corpus.tally import Tally, total
from llmray.corpus.tokenizer import describe, fingerprint
from llmray.job.data import Source
from llmray.job.errors import DataError, StoreError
from llmray.job.load import dump
from llmray.job.results import PrepareResult
from llmray.job.schema import Job, Model
from llmray.model.load import processor, resolve
from llmray.model.names import Names
from llmray.model.registry import nearest
from llmray.store import place
from llmray.store.journal import Progress
from llmray.stream import blocks
from llmray.stream.account import render
from llmray.stream.datasets import each, first_texts, train_tokenizer
from llmray.stream.errors import surfaced
from llmray.stream.stages import Cleaning, Encoding, Line, Part, Step
from llmray.tasks import TASKS, make
from llmray.tasks.base import Processor, Task

DOCUMENTS, PARTS, REPORT = "documents", "parts", "prepare.html"
VERSIONED = ("llmray", "ray", "transformers", "tokenizers", "pyarrow")
COPY = "copy of another document"
DESCRIBED_ROWS, DESCRIBED_CHARS = 20_000, 4_000_000
"""The texts by which a tokenizer is described."""


def ignored(bad: Bad) -> None:
    """Where a tokenizer is trained or described: the encoding judges what cannot be read."""


@dataclass(frozen=True)
class Corpus:
    """What is to be encoded, part after part, and what became of the sources so far."""

    parts: list[Part]
    sources: Sequence[Source]
    """What the parts are parts of."""
    tallies: Sequence[Tally] = ()
    """One a source; none where the encoding itself reads the sources."""
    copies: Copies | None = None
    overlooked: int = 0
    """Evaluation texts that are too short to be looked for."""


def prepare(job: Job, progress: Progress) -> PrepareResult:
    """Clean and encode `data.train` into Parquet files under `output/blocks`; `manifest.json`, written last, commits.

    A second run with the same job checks every file against the manifest, makes damaged ones again, and returns the
    first one's result.  Raises `StoreError` when the folder holds the store of another job.
    """
    assert job.task is not None
    if place.exists(place.join(job.output, MANIFEST)):
        known = blocks.manifest(job.output)
        _require_same(job, known)
        damaged = blocks.damaged(job.output, known["shards"])
        if not damaged:
            return PrepareResult(**known["result"])
        for path in damaged:
            progress.note(f"{path}: is not what was written there; it is made again")
    began, label = time.monotonic(), f"prepare {job.output}"
    progress.start(label)
    stages = Stages(job, lambda done, parts: progress.update(label, done, parts=parts))
    kind = TASKS[job.task.name]
    corpus = stages.corpus()
    task = make(job.task, _processor(job, kind, corpus), job.train.seed)
    files, tallies = stages.encoded(corpus, task)
    if not files:
        paths = ", ".join(source.path for source in job.data.train)
        raise DataError(f"data.train: {paths} makes no encoded rows; see `clean`, and the sources' `where` and `limit`")
    rows, tokens = (sum(file[key] for file in files) for key in ("rows", "tokens"))
    result = PrepareResult(
        store=job.output,
        rows=rows,
        tokens=tokens,
        documents=total(tallies).kept,
        dropped=sum(total(tallies).dropped.values()),
        quarantined=sum(total(tallies).quarantined.values()),
        seconds=time.monotonic() - began,
    )
    body = {
        "job": _identity(job),
        "task": blocks.encoding(task),
        "processor": blocks.identity(task.processor),
        "tokenizer": _described(task, corpus),
        "versions": {name: version(name) for name in VERSIONED},
        "schema": blocks.columns(job.output, files),
        "sources": [
            {"path": source.path, "weight": source.weight, "tally": tally.model_dump()}
            for source, tally in zip(job.data.train, tallies, strict=True)
        ],
        "clusters": corpus.copies.clusters() if corpus.copies else [],
        "overlooked": corpus.overlooked,
        "shards": files,
        "result": result.model_dump(),
    }
    place.write_text(place.join(job.output, "job.yaml"), dump(job))
    place.write_text(place.join(job.output, REPORT), render(body))
    place.write_text(place.join(job.output, MANIFEST), json.dumps(body, indent=2))
    progress.done(label, f"{result.rows:,} rows, {result.tokens:,} tokens")
    return result


class Stages:
    """The parts of a job's corpus, run through Ray Data, those that were done before left out."""

    def __init__(self, job: Job, told: Callable[[int, int], None]) -> None:
        self.job, self.told = job, told
        self.sources = job.data.train

    def corpus(self) -> Corpus:
        """Shards as they are, or what cleaning leaves of them."""
        parts = [Part(number, shard) for number, source in enumerate(self.sources) for shard in shards(source)]
        clean = self.job.data.clean
        if clean is None:
            return Corpus(parts, self.sources)
        folder = place.join(self.job.output, DOCUMENTS)
        contamination = Contamination(text for source in clean.evaluation for text in texts(source))
        work = Cleaning(Refine(clean, contamination, folder, self._names()), self.job.output, self.job.data.on_error)
        lines = self._done(parts, work, clean.model_dump(mode="json"))
        files = [(part, file) for part, line in zip(parts, lines, strict=True) for file in line["files"]]
        paths = [place.join(folder, file["name"]) for _, file in files]
        copies = found_in(paths) if clean.duplicates else None
        drops = copies.by_file if copies else [()] * len(files)
        tallies = [
            total(Tally(**line["tally"]) for part, line in zip(parts, lines, strict=True) if part.source == number)
            for number in range(len(self.sources))
        ]
        for (part, _), dropped in zip(files, drops, strict=True):
            tallies[part.source].drop_kept(COPY, len(dropped))
        kept = zip(files, paths, drops, strict=True)
        left = [Part(p.source, p.shard, path, dropped) for (p, _), path, dropped in kept]
        cleaned = [Source(path=path) for path in sorted(set(paths))]
        return Corpus(left, cleaned, tallies, copies, contamination.too_short)

    def _names(self) -> Names | None:
        personal = self.job.data.clean and self.job.data.clean.personal
        if not (personal and personal.names):
            return None
        names = Names(resolve(personal.names, nearest(self.job.output)))
        names.require()  # before any shard is read
        return names

    def encoded(self, corpus: Corpus, task: Task) -> tuple[list[Line], list[Tally]]:
        """Lines of the manifest for the files of blocks, in the corpus's order, and the sources' tallies."""
        work = Encoding(task, self.job.output, self.job.data.on_error)
        lines = self._done(corpus.parts, work, [blocks.encoding(task), blocks.identity(task.processor)])
        files = [
            file | {"source": part.source}
            for part, line in zip(corpus.parts, lines, strict=True)
            for file in line["files"]
        ]
        tallies = []
        for number, source in enumerate(self.sources):
            told = [line["tally"] for part, line in zip(corpus.parts, lines, strict=True) if part.source == number]
            encoded = total(Tally(**tally) for tally in told)
            if corpus.tallies and encoded.read != corpus.tallies[number].kept:
                raise StoreError(
                    f"{source.path}: {corpus.tallies[number].kept} documents were kept but {encoded.read} encoded; this"
                    " is an error of llmray's, and nothing was committed"
                )
            tally = (
                corpus.tallies[number].model_copy(update=encoded.model_dump(include={"tokens", "cuts"}))
                if corpus.tallies
                else encoded
            )
            tally.require_whole(source.path)
            tallies.append(tally)
        return files, tallies

    def _done(self, parts: Sequence[Part], work: Callable[[Part, str], Line], settings: Any) -> list[Line]:
        folder = place.join(self.job.output, PARTS)
        names = [part.name([type(work).__name__, settings, self.job.train.seed]) for part in parts]
        kept = {
            name: self._line(place.join(folder, f"{name}.json"))
            for name in {*names} & {n[:-5] for n in place.listdir(folder)}
        }
        todo = [(part, name) for part, name in zip(parts, names, strict=True) if not kept.get(name)]
        try:
            with surfaced():
                for done, _ in enumerate(each(len(todo), Step(work, todo, folder)).iter_rows() if todo else (), 1):
                    self.told(len(parts) - len(todo) + done, len(parts))
        except DamageError as damage:
            raise DataError(
                f"{damage}\nMend it, or leave such records out with data.on_error=skip: each is then kept, with its"
                " place and the reason, under `quarantine`"
            ) from None
        return [kept.get(name) or json.loads(place.read_text(place.join(folder, f"{name}.json"))) for name in names]

    def _line(self, path: str) -> Line | None:
        """What a part told, if all its files are as they were written."""
        line: Line = json.loads(place.read_text(path))
        blocks_of = [file for file in line["files"] if "sha256" in file]
        documents = {file["name"] for file in line["files"] if "sha256" not in file}
        return line if documents <= self._documents and not blocks.damaged(self.job.output, blocks_of) else None

    @cached_property
    def _documents(self) -> set[str]:
        """Files of clean documents that an earlier run left."""
        return set(place.listdir(place.join(self.job.output, DOCUMENTS)))


def _described(task: Task, corpus: Corpus) -> dict[str, Any]:
    """The tokenizer's hash, and what it makes of the corpus's first texts."""
    some: list[str] = []
    size = 0
    for text in first_texts(corpus.sources, task.record, DESCRIBED_ROWS, ignored):
        some.append(text)
        if (size := size + len(text)) > DESCRIBED_CHARS:
            break
    tokenizer = task.processor.tokenizer
    return {"sha256": fingerprint(tokenizer), "vocabulary": len(tokenizer)} | asdict(describe(tokenizer, some))


def _identity(job: Job) -> dict[str, Any]:
    """What decides a store's content."""
    return job.model_dump(mode="json", by_alias=True, include={"task", "model", "data"}) | {"seed": job.train.seed}


def _require_same(job: Job, manifest: Line) -> None:
    differing = [key for key, value in _identity(job).items() if manifest["job"].get(key) != value]
    if differing:
        raise StoreError(
            f"{job.output}: holds the store of another job, which differs in {', '.join(differing)};"
            " choose another `output`, or remove the folder"
        )


def _processor(job: Job, kind: type[Task], corpus: Corpus) -> Processor:
    """The model's, or one with a tokenizer trained on the corpus; the tokenizer is kept in the store."""
    model, near = job.model, nearest(job.output)
    if model is not None and (model.tokenizer or not model.from_.startswith("new:")):
        found = processor(model, near)
        _keep(job.output, found.tokenizer)
        return found
    folder = place.join(job.output, "tokenizer")
    if not place.listdir(folder):  # an interrupted run has it already
        extra = kind.special_tokens
        _keep(job.output, train_tokenizer(corpus.sources, kind.record, job.data.tokenizer, ignored, extra))
    kept = str(place.local_copy(folder))
    wanted = model.model_copy(update={"tokenizer": kept}) if model else Model(from_=kept)
    return processor(wanted, near)


def _keep(output: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Save the tokenizer in the store."""
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer.save_pretrained(Path(scratch, "tokenizer"))
        place.upload(Path(scratch, "tokenizer"), place.join(output, "tokenizer"))
