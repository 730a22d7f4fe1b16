"""What became of the records of a source, counted: read = kept + dropped by a named rule + quarantined.

It does not know who judges them.  Tallies of parts add up to that of the whole.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel

from llmray.job.errors import StoreError

EXAMPLES = 3
EXCERPT_CHARS = 300


class Tally(BaseModel):
    """Counts of one source, or of a part of it."""

    read: int = 0
    kept: int = 0
    tokens: int = 0
    cuts: int = 0
    """Cuts through documents that blocks are to keep whole: those longer than a block, and those that fill the last
    gaps."""
    dropped: dict[str, int] = {}
    """Rule → records."""
    quarantined: dict[str, int] = {}
    """Kind of damage → records."""
    personal: dict[str, int] = {}
    """Kind of personal data → places where it was found."""
    languages: dict[str, int] = {}
    """Language of the records that were judged by it."""
    lengths: dict[int, int] = {}
    """Power of two → kept records of at least that many characters, and less than the next."""
    examples: dict[str, list[str]] = {}
    """Rule or kind of damage → how some of its records begin."""

    def keep(self, characters: int) -> None:
        self.kept += 1
        add(self.lengths, 1 << max(characters.bit_length() - 1, 0))

    def drop(self, rule: str, text: str) -> None:
        add(self.dropped, rule)
        self._exemplify(rule, text)

    def quarantine(self, kind: str, reason: str) -> None:
        add(self.quarantined, kind)
        self._exemplify(kind, reason)

    def drop_kept(self, rule: str, count: int) -> None:
        """Take back records that were kept, once it shows that they are not to be."""
        if count:
            self.kept -= count
            add(self.dropped, rule, count)

    def require_whole(self, source: str) -> None:
        """Raise `StoreError` unless every record that was read is accounted for."""
        told = self.kept + sum(self.dropped.values()) + sum(self.quarantined.values())
        if told != self.read:
            raise StoreError(
                f"{source}: {self.read} records were read but {told} are accounted for; this is an error of llmray's,"
                " and nothing was committed"
            )

    def _exemplify(self, name: str, text: str) -> None:
        found = self.examples.setdefault(name, [])
        if len(found) < EXAMPLES:
            found.append(text[:EXCERPT_CHARS])


def add(counts: dict[Any, int], name: str | int, count: int = 1) -> None:
    counts[name] = counts.get(name, 0) + count


def total(tallies: Iterable[Tally]) -> Tally:
    """The sum of the parts."""
    whole = Tally()
    for part in tallies:
        for name in ("read", "kept", "tokens", "cuts"):
            setattr(whole, name, getattr(whole, name) + getattr(part, name))
        for name in ("dropped", "quarantined", "personal", "languages", "lengths"):
            setattr(whole, name, dict(Counter(getattr(whole, name)) + Counter(getattr(part, name))))
        for name, found in part.examples.items():
            whole.examples[name] = (whole.examples.get(name, []) + found)[:EXAMPLES]
    return whole
