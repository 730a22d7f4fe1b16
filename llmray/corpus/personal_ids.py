"""National identity and tax numbers of persons: how each is written, and what tells it from any other number.

It does not know where texts come from or what becomes of a number that is found.  The checks are python-stdnum's
(https://arthurdejong.org/python-stdnum/), whose pages cite each country's rules.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import NamedTuple, TypeAlias

from stdnum.be import nn
from stdnum.br import cpf
from stdnum.ca import sin
from stdnum.ch import ssn as ahv
from stdnum.cn import ric
from stdnum.de import idnr
from stdnum.dk import cpr
from stdnum.es import dni, nie
from stdnum.fi import hetu
from stdnum.fr import nir
from stdnum.ie import pps
from stdnum.in_ import aadhaar, pan
from stdnum.it import codicefiscale
from stdnum.mx import curp
from stdnum.nl import bsn
from stdnum.no import fodselsnummer
from stdnum.pl import pesel
from stdnum.se import personnummer
from stdnum.tr import tckimlik
from stdnum.us import itin, ssn

Span: TypeAlias = tuple[int, int]
"""Start and end in characters of a text."""

LABEL_CHARS = 40
"""How far before a number its label may begin."""


class Shape(NamedTuple):
    """A number as people write it, its check, and the label without which the check is too weak to believe."""

    written: str
    check: Callable[[str], bool]
    label: str = ""


# https://www.gov.uk/hmrc-internal-manuals/national-insurance-manual/nim39110
NINO = r"(?!BG|GB|NK|KN|TN|NT|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d\d ?\d\d ?\d\d ?[A-D]"

SOCIAL_SECURITY = r"\b(?:SSN|social security)\b"

SHAPES: dict[str, tuple[Shape, ...]] = {
    "BE": (Shape(r"\d\d\.?\d\d\.?\d\d-?\d{3}\.?\d\d", nn.is_valid),),
    "BR": (Shape(r"\d{3}\.\d{3}\.\d{3}-\d\d", cpf.is_valid),),
    "CA": (Shape(r"\d{3}[ -]?\d{3}[ -]?\d{3}", sin.is_valid, r"\b(?:SIN|NAS|social insurance)\b"),),
    "CH": (Shape(r"756\.\d{4}\.\d{4}\.\d\d", ahv.is_valid),),
    "CN": (Shape(r"\d{17}[\dX]", ric.is_valid),),
    "DE": (Shape(r"\d\d ?\d{3} ?\d{3} ?\d{3}", idnr.is_valid),),
    "DK": (Shape(r"\d{6}-\d{4}", cpr.is_valid),),
    "ES": (Shape(r"\d{8}[ -]?[A-Z]", dni.is_valid), Shape(r"[XYZ][ -]?\d{7}[ -]?[A-Z]", nie.is_valid)),
    "FI": (Shape(r"\d{6}[-+A-FU-Y]\d{3}[\dA-Y]", hetu.is_valid),),
    "FR": (Shape(r"[12] ?\d\d ?\d\d ?\d[\dAB] ?\d{3} ?\d{3} ?\d\d", nir.is_valid),),
    "GB": (Shape(NINO, bool),),
    "IE": (Shape(r"\d{7}[A-W][A-IW]?", pps.is_valid),),
    "IN": (Shape(r"\d{4} \d{4} \d{4}", aadhaar.is_valid), Shape(r"[A-Z]{5}\d{4}[A-Z]", pan.is_valid)),
    "IT": (Shape(r"[A-Z]{6}[\dL-V]{2}[A-Z][\dL-V]{2}[A-Z][\dL-V]{3}[A-Z]", codicefiscale.is_valid),),
    "MX": (Shape(r"[A-Z]{4}\d{6}[A-Z]{6}[\dA-Z]\d", curp.is_valid),),
    "NL": (Shape(r"\d{9}|\d{4}\.\d\d\.\d{3}", bsn.is_valid, r"\b(?:BSN|burgerservicenummer|sofi-?nummer)\b"),),
    "NO": (Shape(r"\d{6} ?\d{5}", fodselsnummer.is_valid),),
    "PL": (Shape(r"\d{11}", pesel.is_valid),),
    "SE": (Shape(r"(?:\d\d)?\d{6}[-+]\d{4}", personnummer.is_valid),),
    "TR": (Shape(r"\d{11}", tckimlik.is_valid),),
    "US": (
        Shape(r"\d{3}-\d\d-\d{4}", ssn.is_valid),
        Shape(r"9\d\d-\d\d-\d{4}", itin.is_valid),
        Shape(r"\d{3}[ -]?\d\d[ -]?\d{4}", lambda number: ssn.is_valid(number.replace(" ", "")), SOCIAL_SECURITY),
    ),
}
"""ISO 3166 code of a region → what its numbers look like."""


def identities(text: str, start: int, stop: int, regions: Sequence[str]) -> Iterator[Span]:
    """The numbers of `regions` between `start` and `stop`; a region not in `SHAPES` has none."""
    shapes, some = _compiled(tuple(regions))
    for match in some.finditer(text, start, stop):
        before = text[max(0, match.start() - LABEL_CHARS) : match.start()]
        for pattern, shape in shapes:
            number = pattern.match(text, match.start(), stop)
            if number and shape.check(number.group()) and re.search(shape.label, before, re.IGNORECASE):
                yield number.span()
                break


@cache
def _compiled(regions: tuple[str, ...]) -> tuple[list[tuple[re.Pattern[str], Shape]], re.Pattern[str]]:
    """Each shape of the regions, and one pattern that begins wherever any of them does."""
    shapes = [shape for region in regions for shape in SHAPES.get(region, ())]
    alone = [re.compile(rf"(?:{shape.written})(?!\w|[-.]\d)") for shape in shapes]
    some = "|".join(shape.written for shape in shapes) or "(?!)"
    return list(zip(alone, shapes, strict=True)), re.compile(rf"(?<!\w)(?<!\d[-.])(?:{some})(?!\w|[-.]\d)")
