"""Recall and precision of `llmray.corpus.personal` by kind on Presidio's synthetic texts, and its speed.

    python benchmarks/personal.py

Reads `data/privacy/presidio_pii`, `data/lm/english_novels` and `data/crawl/commoncrawl_2020` (see configs/real).  A
gold span is found when a finding of its kind touches it; exact when it has its very ends.  A finding is right when it
touches a gold span of its kind; "no data" counts those that touch no gold span at all.  There was no held-out part: the
words that label a telephone number were chosen with these texts in view, so other texts will be served less well.
"""

import gzip
import json
import lzma
import time
from collections import Counter
from pathlib import Path
from typing import Any

from llmray.corpus.personal import Finding, find

DATA = Path("data")
GOLD = {
    "EMAIL_ADDRESS": "email",
    "IP_ADDRESS": "ip",
    "IBAN_CODE": "iban",
    "CREDIT_CARD": "card",
    "US_SSN": "national_id",
    "PHONE_NUMBER": "phone",
}


def texts() -> list[dict[str, Any]]:
    files = sorted((DATA / "privacy" / "presidio_pii").glob("*.json.gz"))
    return [row for file in files for row in json.loads(gzip.decompress(file.read_bytes()))]


def touches(finding: Finding, span: dict[str, Any]) -> bool:
    return bool(finding.start < span["end_position"] and span["start_position"] < finding.end)


def count(row: dict[str, Any], counts: Counter[tuple[str, str]]) -> None:
    found = find(row["full_text"])
    for span in row["spans"]:
        kind = GOLD.get(span["entity_type"])
        if kind is not None:
            hits = [finding for finding in found if finding.kind == kind and touches(finding, span)]
            exact = Finding(kind, span["start_position"], span["end_position"]) in hits
            counts.update({(kind, "gold"): 1, (kind, "hit"): bool(hits), (kind, "exact"): exact})
    for finding in found:
        touched = [span for span in row["spans"] if touches(finding, span)]
        right = any(GOLD.get(span["entity_type"]) == finding.kind for span in touched)
        counts.update({(finding.kind, "found"): 1, (finding.kind, "right"): right, (finding.kind, "none"): not touched})


def table(counts: Counter[tuple[str, str]]) -> str:
    lines = ["| kind | gold spans | recall | exact | found | precision | no data |", "|---|---|---|---|---|---|---|"]
    for kind in GOLD.values():
        gold, hit, exact, found, right, none = (
            counts[kind, name] for name in ("gold", "hit", "exact", "found", "right", "none")
        )
        rates = f"{gold} | {hit / gold:.1%} | {exact / gold:.1%} | {found} | {right / found:.1%} | {none}"
        lines.append(f"| {kind} | {rates} |")
    return "\n".join(lines)


def speed(name: str, documents: list[str]) -> str:
    start = time.process_time()
    findings = Counter(finding.kind for text in documents for finding in find(text))
    seconds = time.process_time() - start
    size = sum(len(text.encode()) for text in documents) / 1e6
    return f"| {name} | {size:.1f} | {size / seconds:.1f} | {dict(findings) or 'none'} |"


def main() -> None:
    rows = texts()
    counts: Counter[tuple[str, str]] = Counter()
    for row in rows:
        count(row, counts)
    print(table(counts))
    with lzma.open(DATA / "lm" / "english_novels" / "train.jsonl.xz", "rt") as file:
        novels = [json.loads(line)["text"] for line in file]
    crawl = gzip.decompress((DATA / "crawl" / "commoncrawl_2020" / "warcfile.warc.gz").read_bytes())
    print("\n| texts | MB | MB per CPU second | found |\n|---|---|---|---|")
    print(speed("novels", novels))
    print(speed("crawl, raw WARC", [crawl.decode(errors="replace")]))
    print(speed("presidio", [row["full_text"] for row in rows]))


if __name__ == "__main__":
    main()
