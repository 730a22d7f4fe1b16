"""Personal data is found by its checksum, plan or label; what only looks like it is not; and none outlives masking.

Numbers are the published examples of their specifications; addresses are of documentation ranges where those are found.
"""

import gzip
import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmray.corpus.personal import KINDS, Finding, find, mask
from llmray.corpus.personal_ids import SHAPES
from llmray.job.errors import JobError

PIECES = [
    "joe@example.org", "93.184.216.34", "2001:4860:4860::8888", "GB82WEST12345698765432", "4111 1111 1111 1111",
    "536-90-4399", "+49 30 1234567", "Tel.", "030 1234567", "1850-1860", "ISBN 0-306-40615-2", "123456", "word", "٣",
]  # fmt: skip
SENTENCES = st.lists(st.tuples(st.sampled_from(PIECES), st.sampled_from([", ", "; ", "\n"])).map("".join)).map("".join)
GLUED = st.lists(st.sampled_from(PIECES) | st.text("0123456789.:-@+() Aa\ud800", max_size=8)).map("".join)
TEXTS = st.text(st.characters()) | SENTENCES | GLUED


def found(text: str, **options: object) -> list[tuple[str, str]]:
    return [(one.kind, text[one.start : one.end]) for one in find(text, **options)]


@pytest.mark.parametrize(
    ("kind", "text", "number"),
    [
        ("email", "write to joe.o'brien+x@mail.example.co.uk.", "joe.o'brien+x@mail.example.co.uk"),
        ("email", "<müller@köln.de>", "müller@köln.de"),
        ("email", "联系foo@example.com吗", "foo@example.com"),
        ("email", "/?to=joe@example.com&x=1", "joe@example.com"),
        ("ip", "from 93.184.216.34:80", "93.184.216.34"),
        ("ip", "from 2001:4860:4860::8888, again", "2001:4860:4860::8888"),
        ("iban", "IBAN DE89 3704 0044 0532 0130 00 BIC COBADEFF", "DE89 3704 0044 0532 0130 00"),
        ("iban", "gb82west12345698765432", "gb82west12345698765432"),
        ("card", "12 4111 1111 1111 1111 12/29", "4111 1111 1111 1111"),
        ("card", "3782 822463 10005", "3782 822463 10005"),
        ("national_id", "SSN 536-90-4399.", "536-90-4399"),
        ("national_id", "AB 12 34 56 C", "AB 12 34 56 C"),
        ("national_id", "36 574 261 809", "36 574 261 809"),
        ("national_id", "54362315-K", "54362315-K"),
        ("national_id", "X2482300W", "X2482300W"),
        ("national_id", "2 95 10 99 126 111 93", "2 95 10 99 126 111 93"),
        ("national_id", "RCCMNL83S18D969H", "RCCMNL83S18D969H"),
        ("national_id", "BSN: 111222333", "111222333"),
        ("national_id", "44051401359", "44051401359"),
        ("phone", "or +44 20 7946 0958, please", "+44 20 7946 0958"),
        ("phone", "(212) 555-0123 ext. 12", "(212) 555-0123 ext. 12"),
        ("phone", "Berlin 030 1234567, Rom", "030 1234567"),
        ("phone", "Fax 555-0123", "555-0123"),
        ("phone", "555-0123 (mobile)", "555-0123"),
    ],
)
def test_found_to_its_very_ends(kind, text, number):
    assert found(text) == [(kind, number)]


@pytest.mark.parametrize(
    "text",
    [
        "icon@2x.png, react@16.8.0, @handle and a@b",
        "https://medium.com/@some.name",
        "192.168.1.1, 10.0.0.1, 127.0.0.1 and fe80::1 are nobody's",
        "sections 1.2.3.4 and 3.2.1.4, version 93.45.3.200, 1.256.3.99",
        "std::dead::beef, 12:30:45, 00:1A:2B:3C:4D:5E, 00:11:22:33:44:55:66:77",
        "DE89 3704 0044 0532 0130 01",  # check digits
        "4111 1111 1111 1112",  # Luhn
        "9111 1111 1111 1119 and 1111 1111 1111 1117",  # Luhn, but no issuer's
        "36574261890, 54362315Z, RCCMNL83S18D969A, 44051401358, BG 12 34 56 C",
        "111222333 without its label",
        "in 1914-1918, (1850–1860) and 2012-2013",
        "31.12.2019, 12/31/2019, 2019-12-31 12:30:45",
        "cost 1,234,567.89 or 12 345 678.00",
        "at 52.520008, 13.404954 or 48.8566 2.3522",
        "π is 3.14159265358979, not 0.5551234567",
        "ISBN 978-3-16-148410-0, 0-306-40615-2, ISBN-10: 0306406152",
        "21-19, 15-21, 21-18",
        "call 12.05.2019",
    ],
)
def test_near_misses(text):
    assert found(text) == []


def test_identity_numbers_that_are_never_issued():
    assert found("000-12-3456, 666-12-3456, 536-00-4399, 536-90-0000", regions=("US",)) == []


def test_kinds_and_regions_narrow_what_is_found():
    text = "joe@example.org, 030 1234567, 536-90-4399"
    assert [kind for kind, _ in found(text)] == ["email", "phone", "national_id"]
    assert found(text, kinds=("phone",), regions=("DE",))[0] == ("phone", "030 1234567")
    assert found("+49 30 1234567, 030 1234567", regions=()) == [("phone", "+49 30 1234567")]
    assert found(text, regions=("US",)) == [("email", "joe@example.org"), ("national_id", "536-90-4399")]


def test_every_region_with_identity_numbers_is_known():
    for region in SHAPES:
        find("a number 123456", regions=(region,))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kinds": ("mail",)}, "personal data: no kind 'mail'; allowed: card, email"),
        ({"regions": ("UK",)}, "personal data: no region 'UK'; allowed: AC, AD"),
    ],
)
def test_unknown_words_are_named(options, words):
    with pytest.raises(JobError, match=words):
        find("text", **options)


def test_a_recogniser_adds_its_own_kinds_and_overlaps_become_one():
    text = "Ann Lee joe@example.org"
    assert mask(text, find(text, recogniser=lambda _: [Finding("person", 0, 7)])) == "<PERSON> <EMAIL>"
    assert find(text, recogniser=lambda _: [Finding("person", 4, 11)]) == [Finding("person", 4, 23)]


def test_mask_keeps_what_lies_between():
    text = "a joe@example.org, b 93.184.216.34"
    assert mask(text, find(text)) == "a <EMAIL>, b <IP>"
    assert mask("nothing", []) == "nothing"


@settings(deadline=None)
@given(TEXTS)
def test_findings_are_apart_and_in_order_and_masking_keeps_the_rest(text):
    findings = find(text)
    assert all(one.kind in KINDS and 0 <= one.start < one.end <= len(text) for one in findings)
    assert all(one.end <= other.start for one, other in pairwise(findings))
    masked = mask(text, findings)
    at = 0
    for one, before in zip([*findings, None], [0, *(f.end for f in findings)], strict=True):
        kept = text[before : one.start if one else len(text)]
        assert masked.startswith(kept, at)
        at += len(kept)
        if one:
            placeholder = f"<{one.kind.upper()}>"
            assert masked.startswith(placeholder, at)
            at += len(placeholder)
    assert at == len(masked)


@settings(deadline=None)
@given(SENTENCES)
def test_no_finding_outlives_masking(text):
    assert find(mask(text, find(text))) == []


def test_a_placeholder_labels_nothing():
    assert found("<PHONE>, 123456") == []
    assert found("Phone, 123456") == [("phone", "123456")]


def test_gold_spans_of_presidio(shared_data):
    wanted = {"EMAIL_ADDRESS": "email", "IBAN_CODE": "iban", "US_SSN": "national_id"}
    path = shared_data / "privacy" / "presidio_pii" / "synth_dataset_v2.json.gz"
    rows = json.loads(gzip.decompress(path.read_bytes()))[:500]
    gold = [
        (row["full_text"], Finding(wanted[span["entity_type"]], span["start_position"], span["end_position"]))
        for row in rows
        for span in row["spans"]
        if span["entity_type"] in wanted
    ]
    assert len(gold) > 20
    assert [(text, span) for text, span in gold if span not in find(text)] == []
