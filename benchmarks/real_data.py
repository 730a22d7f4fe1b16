"""Trains every job of configs/real and scores it beside its naive baseline, as a Markdown table.

    python benchmarks/real_data.py [squad multi30k novels nlvr] [section.key=value ...]

Reads `data/` (see configs/real); writes under `runs/`.
"""

import sys
from pathlib import Path

import llmray
from llmray.job.results import EvaluateResult

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "real"
SHOWN = {
    "squad": ("exact_match", "f1"),
    "multi30k": ("bleu", "chrf"),
    "novels": ("perplexity", "bits_per_byte"),
    "nlvr": ("bleu", "chrf"),
}


def line(name: str, seconds: float, report: EvaluateResult) -> str:
    told = [f"{report.metrics[metric]:.2f} | {report.baseline[metric]:.2f}" for metric in SHOWN[name]]
    rows = [f"| {name} | {metric} | {pair} |" for metric, pair in zip(SHOWN[name], told, strict=True)]
    return "\n".join(f"{row} {seconds / 60:.1f} | {report.rows:,} |" for row in rows)


def main(words: list[str]) -> None:
    overrides = [word for word in words if "=" in word]
    print("| job | metric | value | baseline | minutes of training | rows scored |\n|---|---|---|---|---|---|")
    for name in [word for word in words if "=" not in word] or SHOWN:
        job = str(CONFIGS / f"{name}.yaml")
        run = llmray.train(job, *overrides)
        report = llmray.evaluate(job, f"model.from={run.model}", *overrides)
        print(line(name, run.seconds, report), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
