"""A shard of documents → clean documents in files, the keys by which copies are found, and a tally.

It does not know what other shards hold, nor what becomes of the files.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from llmray.corpus import personal
from llmray.corpus.clean import Judge
from llmray.corpus.contamination import Contamination
from llmray.corpus.dedup import bands, exact, signature
from llmray.corpus.record import Bad, Columns, Document
from llmray.corpus.source import Shard, read
from llmray.corpus.tally import Tally, add
from llmray.job.data import Clean
from llmray.store import place

FILE_BYTES = 64 << 20
"""A file of clean documents is closed at this size of text."""
KEYS = "keys"
"""Column of a document's keys: `dedup.exact`, then `dedup.bands` where near copies are looked for."""
CONTAMINATED = "evaluation text"
PERSONAL = "personal data"


@dataclass(frozen=True)
class Refine:
    """Cleans shards into `folder`."""

    clean: Clean
    contamination: Contamination
    folder: str
    names: personal.Recogniser | None = None

    def __call__(self, shard: Shard, name: str, quarantine: "Quarantine | None") -> tuple[list[dict[str, Any]], Tally]:
        """The files written, each with its rows, and the tally.

        Damaged records go to the quarantine; without one the first is a `DataError`.
        """
        tally, files = Tally(), list[dict[str, Any]]()
        kept: list[str] = []
        size = 0
        for columns in read(shard, Document, on_bad=quarantine.take if quarantine else None):
            tally.read += len(columns["text"])
            for text in self._kept(columns, tally):
                kept.append(text)
                size += len(text)
            if size >= FILE_BYTES:
                files.append(self._write(f"{name}-{len(files)}.parquet", kept))
                kept, size = [], 0
        if kept:
            files.append(self._write(f"{name}-{len(files)}.parquet", kept))
        if quarantine:
            quarantine.close(tally)
        return files, tally

    def _kept(self, columns: Columns, tally: Tally) -> Iterable[str]:
        judge = Judge(self.clean.languages, self.clean.language_score, self.clean.quality)
        for raw in columns["text"]:
            verdict = judge.judge(raw)
            if verdict.language:
                add(tally.languages, verdict.language)
            text, reason = self._private(verdict.text, tally) if verdict.reason is None else ("", verdict.reason)
            if reason is None and self.contamination.found(text):
                reason = CONTAMINATED
            if reason is None:
                tally.keep(len(text))
                yield text
            else:
                tally.drop(reason, raw)

    def _private(self, text: str, tally: Tally) -> tuple[str, str | None]:
        wanted = self.clean.personal
        if wanted is None:
            return text, None
        findings = personal.find(text, wanted.kinds, wanted.regions, self.names)
        for finding in findings:
            add(tally.personal, finding.kind)
        if findings and wanted.action == "drop":
            return text, PERSONAL
        return personal.mask(text, findings), None

    def _write(self, name: str, texts: list[str]) -> dict[str, Any]:
        keys = np.array([exact(text) for text in texts], np.uint64)[:, None]
        if self.clean.duplicates == "near":
            keys = np.hstack([keys, bands(np.stack([signature(text) for text in texts]))])
        flat = pa.FixedSizeListArray.from_arrays(pa.array(keys.ravel()), keys.shape[1])
        with place.replacing(place.join(self.folder, name)) as file:
            pq.write_table(pa.table({"text": texts, KEYS: flat}), file, compression="zstd", row_group_size=1024)
        return {"name": name, "rows": len(texts)}


class Quarantine:
    """Records of a shard that cannot be read, kept as JSON Lines with their places and reasons."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.found: list[Bad] = []

    def take(self, bad: Bad) -> None:
        self.found.append(bad)

    def close(self, tally: Tally) -> None:
        """Count what was taken, and write it, if there is any."""
        for bad in self.found:
            tally.read += 1
            tally.quarantine(bad.kind, f"{bad.where}: {bad.reason}")
        if self.found:
            place.write_text(self.path, "".join(json.dumps(asdict(bad)) + "\n" for bad in self.found))
