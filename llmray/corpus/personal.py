"""Finds and masks personal data in text: addresses, telephone, bank, card and identity numbers.

It does not know where texts come from, nor which kinds are wanted.  Names need a model of language and are left to a
`recogniser` of the caller's.  What is written to be overlooked ("joe at example dot com") is.
"""

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from llmray.corpus.personal_ids import Span
from llmray.corpus.personal_numbers import NUMBERS, REGIONS, runs
from llmray.job.errors import JobError

KINDS = ("email", "ip", *NUMBERS)
"""Of two kinds that hold the same stretch the earlier is told."""

DEFAULT_REGIONS = ("US", "GB", "DE", "FR", "ES", "IT", "NL", "PL")
"""More regions find more and mistake more: what is no number in one is often a telephone's in another."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A stretch of a text, in characters from `start` to before `end`, and the kind of personal data that it holds."""

    kind: str
    start: int
    end: int


Recogniser: TypeAlias = Callable[[str], Iterable[Finding]]
"""Findings of kinds of its own, such as the names that spaCy or Presidio find."""


def find(
    text: str,
    kinds: Sequence[str] | None = None,
    regions: Sequence[str] = DEFAULT_REGIONS,
    recogniser: Recogniser | None = None,
) -> list[Finding]:
    """Personal data of `kinds` (all of `KINDS` by default) in order of place, none overlapping another.

    Telephone numbers are found in their international form, and as people of `regions` write them at home; identity
    numbers are those of `regions`.  Raises `JobError` for a kind or region that is not known.
    """
    wanted = KINDS if kinds is None else tuple(kinds)
    _require("kind", wanted, KINDS)
    _require("region", regions, REGIONS)
    found = [Finding(kind, *span) for kind in wanted if kind in _ADDRESSES for span in _ADDRESSES[kind](text)]
    numbers = [(kind, NUMBERS[kind]) for kind in wanted if kind in NUMBERS]
    for start, stop in runs(text):
        found += [Finding(kind, *span) for kind, spans in numbers for span in spans(text, start, stop, regions)]
    return _merged([*found, *(recogniser(text) if recogniser else ())])


def mask(text: str, findings: Iterable[Finding]) -> str:
    """The text with each of its findings, as `find` gives them, replaced by its kind: `<EMAIL>`, `<NATIONAL_ID>`.

    FineWeb puts a neutral address in place of a real one (https://arxiv.org/abs/2406.17557), so that texts stay
    natural; but there is no neutral card or telephone number, a model that has learnt the stand-ins writes them as if
    they were somebody's, and nobody can count what was masked.  A placeholder is plain to models and to readers.
    """
    parts, at = [], 0
    for finding in findings:
        parts += [text[at : finding.start], f"<{finding.kind.upper()}>"]
        at = finding.end
    return "".join([*parts, text[at:]])


def _require(name: str, given: Sequence[str], known: Iterable[str]) -> None:
    for one in given:
        if one not in known:
            raise JobError(f"personal data: no {name} {one!r}; allowed: {', '.join(sorted(known))}")


def _merged(findings: list[Finding]) -> list[Finding]:
    """Overlapping findings become one, of the kind of the first and longest, so that no end of any is left over."""
    order = {kind: rank for rank, kind in enumerate(KINDS)}
    merged: list[Finding] = []
    for one in sorted(findings, key=lambda f: (f.start, -f.end, order.get(f.kind, len(order)))):
        if merged and one.start < merged[-1].end:
            merged[-1] = replace(merged[-1], end=max(merged[-1].end, one.end))
        else:
            merged.append(one)
    return merged


# Addresses: a dot-atom (RFC 5322; RFC 6531 for letters beyond ASCII) at a domain name that is no number, without what
# surrounds addresses in links and code.  Scripts without spaces are left out: an address ends where they begin.
_LETTER = r"0-9A-Za-zÀ-ԯ"
_EMAIL = re.compile(
    rf"(?<![{_LETTER}])[{_LETTER}][{_LETTER}.!#$%'*+^_~-]{{0,63}}"
    rf"@(?!\dx\.)(?:[{_LETTER}](?:[{_LETTER}-]{{0,61}}[{_LETTER}])?\.)+"  # icon@2x.png is a picture
    rf"(?:xn--[0-9A-Za-z-]{{2,59}}|[A-Za-zÀ-ԯ]{{2,24}})(?![{_LETTER}])"
)


def _emails(text: str) -> Iterator[Span]:
    if "@" in text:
        yield from (match.span() for match in _EMAIL.finditer(text))


# An address without its first group: few texts have such stops and colons, so that looking for them costs little.
_IP = re.compile(r"\.\d{1,3}\.\d{1,3}\.\d{1,3}(?!\w|\.\d)|:[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:]{0,36}")
_FIRST = re.compile(r"(?<![\w.])[0-9A-Fa-f]{0,4}\Z")
_VERSION = re.compile(r"\b(?:v|ver|version|release|build|firmware)[\s.:]{0,3}\Z", re.IGNORECASE)


def _ips(text: str) -> Iterator[Span]:
    for match in _IP.finditer(text):
        first = _FIRST.search(text, max(0, match.start() - 4), match.start())
        if first is None:
            continue
        written = first.group() + match.group()
        written = written if written.endswith("::") else written.rstrip(":")
        version = _VERSION.search(text, max(0, first.start() - 12), first.start())
        if not version and _is_public(written) and _is_no_other(written):
            yield first.start(), first.start() + len(written)


def _is_no_other(address: str) -> bool:
    """No version or section (all four numbers small, as in one address of 4,096), no fingerprint (pairs of digits), no
    C++ (`::` outside 2000::/3, where all public addresses are)."""
    if "." in address:
        return max(map(int, address.split("."))) >= 32
    return address[0] in "23" if "::" in address else max(map(len, address.split(":"))) > 2


def _is_public(address: str) -> bool:
    """As datatrove and FineWeb decide: an address that is private, local or reserved is nobody's."""
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:
        return False


_ADDRESSES = {"email": _emails, "ip": _ips}
