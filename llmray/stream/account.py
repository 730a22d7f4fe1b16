"""What `prepare` did, as a page: kept and dropped by source and rule, lengths, languages, copies, personal data.

It does not know how any of it was found.
"""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from llmray.corpus.tally import Tally, total
from llmray.store import page


def render(manifest: Mapping[str, Any]) -> str:
    """`prepare.html`, from the manifest of a store."""
    sources = [(source["path"], source["weight"], Tally(**source["tally"])) for source in manifest["sources"]]
    whole, result = total(tally for _, _, tally in sources), manifest["result"]
    sections = [
        page.paragraph(f"{result['rows']:,} blocks, {result['tokens']:,} tokens, {result['seconds']:.1f} s."),
        page.table(["source", "weight", "read", "kept", "dropped", "quarantined", "tokens", "share", "cuts"], [
            (path, weight or "", tally.read, tally.kept, sum(tally.dropped.values()), sum(tally.quarantined.values()),
             tally.tokens, f"{100 * tally.tokens / max(whole.tokens, 1):.1f} %", tally.cuts)
            for path, weight, tally in sources
        ]),
    ]  # fmt: skip
    sections += [page.heading("Tokenizer"), _tokenizer(manifest["tokenizer"])]
    sections += _counted("Dropped, by rule", "rule", whole.dropped, whole)
    if manifest["overlooked"]:
        sections.append(page.paragraph(f"{manifest['overlooked']:,} evaluation texts are too short to be looked for."))
    sections += _counted("Quarantined, by kind of damage", "kind", whole.quarantined, whole)
    sections += _counted("Personal data, by kind", "kind", whole.personal)
    sections += _counted("Languages", "language", whole.languages)
    if whole.lengths:
        sections += [page.heading("Lengths of kept records"), _lengths(whole.lengths)]
    if manifest["clusters"]:
        rows = [(cluster["copies"], cluster["text"]) for cluster in manifest["clusters"]]
        sections += [page.heading("Most copied documents"), page.table(["copies", "begins"], rows)]
    return page.page("Prepared corpus", sections)


def _tokenizer(found: Mapping[str, Any]) -> str:
    names = ["vocabulary", "bytes per token", "vocabulary used", "unknown"]
    used, unknown = (f"{100 * found[name]:.2f} %" for name in ("vocabulary_used", "unknown"))
    row = (f"{found['vocabulary']:,}", f"{found['bytes_per_token']:.2f}", used, unknown)
    told = page.paragraph(f"Of the corpus's first {found['tokens']:,} tokens.")
    return page.table(names, [row]) + told


def _counted(title: str, name: str, counts: Mapping[str, int], examples: Tally | None = None) -> list[str]:
    if not counts:
        return []
    ranked = sorted(counts.items(), key=lambda item: -item[1])
    if examples is None:
        return [page.heading(title), page.table([name, "count"], ranked)]
    rows = [(key, count, "\n…\n".join(examples.examples.get(key, []))) for key, count in ranked]
    return [page.heading(title), page.table([name, "count", "examples"], rows)]


def _lengths(lengths: Mapping[int, int]) -> str:
    plot = Figure(figsize=(7, 2.5))
    axes = plot.subplots()
    powers = sorted(lengths)
    axes.bar([f"{power:,}" for power in powers], [lengths[power] for power in powers], color="#1f6870")
    axes.set_xlabel("characters, at least")
    axes.set_ylabel("records")
    axes.tick_params(axis="x", rotation=45)
    return page.figure(plot, "Records by length, each bar up to twice its number of characters.")
