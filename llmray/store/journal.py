"""The journal of a run: `metrics.jsonl`, one JSON object a line, and the progress a person watches.

It does not know what is being measured.
"""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from llmray.store import place

METRICS = "metrics.jsonl"
PLAIN_EVERY_S = 5.0


def append(path: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Add rows to a journal; an object store, which cannot append, gets the whole journal again."""
    if not place.is_local(path):
        rewrite(path, [*read(path), *rows])
        return
    local, data = Path(path.removeprefix("file://")), _text(rows).encode()
    local.parent.mkdir(parents=True, exist_ok=True)
    with local.open("ab", buffering=0) as file:
        whole = file.tell()
        try:
            while data:
                data = data[file.write(data) :]
        except OSError:  # a full disk: what is half written would spoil the next line
            file.truncate(whole)
            raise


def rewrite(path: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Replace a journal; after a crash there is the old one or the new one."""
    place.write_text(path, _text(rows))


def read(path: str) -> list[dict[str, object]]:
    """Rows of a journal in order; none when there is no such file.  A line cut short by a crash is left out."""
    if not place.exists(path):
        return []
    lines = place.read_text(path).splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _text(rows: Sequence[Mapping[str, object]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def spoken(metrics: Mapping[str, object]) -> str:
    """Metrics as a person reads them: `loss 2.31, tokens/s 12,400`."""
    return "  ".join(f"{k.replace('_per_s', '/s')} {_number(v)}" for k, v in metrics.items() if v is not None)


def _number(value: object) -> str:
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) < 0.01 else f"{value:.3f}"


class Progress:
    """Shows long work on standard error: bars on a terminal, a line every few seconds elsewhere."""

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.console = Console(file=stream or sys.stderr, highlight=False)
        self.bars: Bars | None = None
        self.shown: dict[str, TaskID] = {}
        self.total: dict[str, int | None] = {}
        self.began: dict[str, float] = {}
        self.spoke: dict[str, float] = {}

    @classmethod
    def silent(cls) -> "Progress":
        return cls(quiet=True)

    def start(self, label: str, total: int | None = None) -> None:
        """Begin a piece of work of `total` steps (None: unknown)."""
        self.total[label], self.began[label], self.spoke[label] = total, time.monotonic(), time.monotonic()
        if self.quiet:
            return
        if not self.console.is_terminal:
            self.console.print(f"{label} …", markup=False, soft_wrap=True)
            return
        if self.bars is None:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(24),
                TextColumn("{task.percentage:>3.0f}%"),
            )
            self.bars = Bars(*columns, TimeRemainingColumn(), TextColumn("{task.fields[said]}"), console=self.console)
            self.bars.start()
        self.shown[label] = self.bars.add_task(label, total=total, said="")

    def update(self, label: str, step: int, **metrics: object) -> None:
        """Tell how far a piece of work is, and its latest metrics."""
        if label in self.shown and self.bars:
            self.bars.update(self.shown[label], completed=step, said=spoken(metrics))
        elif not self.quiet and time.monotonic() - self.spoke.get(label, 0.0) >= PLAIN_EVERY_S:
            self.spoke[label] = time.monotonic()
            self.console.print(f"{label}: {self._place(label, step)}  {spoken(metrics)}", markup=False, soft_wrap=True)

    def _place(self, label: str, step: int) -> str:
        total, spent = self.total.get(label), time.monotonic() - self.began.get(label, time.monotonic())
        if not total:
            return f"step {step}"
        left = spent / step * (total - step) if step else 0.0
        return f"step {step}/{total}  {left:.0f} s left"

    def done(self, label: str, note: str = "") -> None:
        """End a piece of work with one line that stays."""
        spent = time.monotonic() - self.began.pop(label, time.monotonic())
        if label in self.shown and self.bars:
            self.bars.remove_task(self.shown.pop(label))
            if not self.shown:
                self.bars.stop()
                self.bars = None
        self.note(f"✓ {label}  {note}  ({spent:.1f} s)")

    def note(self, text: str) -> None:
        """Say one line."""
        if not self.quiet:
            self.console.print(text, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Take the bars down, whatever was unfinished."""
        if self.bars:
            self.bars.stop()
            self.bars, self.shown = None, {}
