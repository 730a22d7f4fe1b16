"""The demo: every verb in order on the built-in corpus, ending in endpoints and a page.

It does not know how any verb works; what it shows is what a user's own jobs would do.
"""

import os
import time
from collections.abc import Callable
from typing import Any

from llmray import verbs
from llmray.job.errors import LlmrayError
from llmray.job.load import load
from llmray.job.results import DemoResult, EvaluateResult, ServeResult
from llmray.job.schema import Bound, Job
from llmray.store import place
from llmray.store.journal import Progress

MODELS = {"writer": "generate", "qa": "qa", "translator": "translate", "captioner": "caption"}
"""Registered name → route."""

GOALS = {
    "qa": {"exact_match": Bound(min=90)},
    "translator": {"bleu": Bound(min=80)},
    "captioner": {"facts": Bound(min=85)},
}
"""What `--check` demands on held-out scenes, beside the comparisons of `_shortfalls`."""


def _corpus(rows: int, held_out: int = 400) -> dict[str, Any]:
    """Scenes for one pass: a reader that is interrupted ends its process, and the next training waits for new ones."""
    source = "builtin:shapes?rows={}&split={}"
    return {"train": source.format(rows, "train"), "eval": source.format(held_out, "eval")}


def _jobs(output: str) -> dict[str, Job]:
    """The job of every training, as a user would write it; small enough for two CPU cores."""
    two, here = {"workers": 2}, {"workers": 1, "max_failures": 0}
    qa_train = {"steps": 440, "batch_size": 32, "learning_rate": 1e-3, "warmup_steps": 30}
    qa = {"task": {"name": "qa", "max_length": 128, "stride": 32}, "data": _corpus(440 * 32), "scale": here}
    encoder = place.join(output, "encoder", "model")
    trees: dict[str, dict[str, Any]] = {
        "writer": {
            "task": {"name": "causal_lm", "seq_len": 64},
            "model": {"from": "new:gpt2-tiny"},
            "data": _corpus(5_500) | {"tokenizer": {"vocab_size": 600, "sample_rows": 2000}},
            "train": {"steps": 60, "batch_size": 64, "learning_rate": 3e-3, "warmup_steps": 15},
            "scale": two,
        },
        "encoder": {
            "task": {"name": "masked_lm", "seq_len": 64, "mask_share": 0.3},
            "model": {"from": "new:modernbert-tiny", "tokenizer": place.join(output, "writer", "model")},
            "data": _corpus(18_000),
            "train": {"steps": 420, "batch_size": 32, "learning_rate": 2e-3, "warmup_steps": 40},
            "scale": here,
        },
        "sweep": qa
        | {
            "model": {"from": encoder},
            "data": _corpus(60 * 32, held_out=200),
            "train": qa_train | {"steps": 60, "eval_every": 20, "warmup_steps": 20},
            "scale": {"workers": 1},
            "tune": {
                "space": {"train.learning_rate": [5e-4, 1.5e-3], "train.batch_size": [24, 32]},
                "trials": 4,
                "grace_steps": 20,
            },
        },
        "qa": qa | {"model": {"from": encoder}, "train": qa_train},
        "qa-scratch": qa
        | {
            "model": {"from": "new:modernbert-tiny", "tokenizer": encoder},
            "train": qa_train,
        },
        "translator": {
            "task": {"name": "translation", "max_source_tokens": 64, "max_target_tokens": 80},
            "model": {"from": "new:marian-tiny"},
            "data": _corpus(240 * 32) | {"tokenizer": {"vocab_size": 900, "sample_rows": 2000}},
            "train": {"steps": 240, "batch_size": 32, "learning_rate": 3e-3, "warmup_steps": 60},
            "scale": here,
        },
        "captioner": {
            "task": {"name": "captioning", "max_tokens": 40},
            "model": {"from": "new:vit-gpt2-tiny"},
            "data": _corpus(400 * 64) | {"tokenizer": {"vocab_size": 400, "sample_rows": 2000}},
            "train": {"steps": 400, "batch_size": 64, "learning_rate": 2e-3, "warmup_steps": 40},
            "scale": here,
        },
    }
    return {name: load(tree | {"output": place.join(output, name)}) for name, tree in trees.items()}


def demo(
    output: str = "runs/demo",
    *overrides: str,
    progress: Progress | None = None,
    until: Callable[[DemoResult], None] | None = None,
) -> DemoResult:
    """The whole life of a model on one machine; the page stays up as long as `until(result)` runs.

    Raises `LlmrayError` naming every goal that was missed, after `until(result)` has run.
    """
    from cluster.session import session
    from serve.deploy import prepare_environment

    began, progress = time.monotonic(), progress or Progress()
    jobs = _jobs(output)
    served = load({"output": output, "serve": {"endpoints": _endpoints(jobs), "if_port_taken": "next"}}, overrides)
    served = served.model_copy(update={"serve": prepare_environment(served.serve, served.output)})
    with session(served.scale, nice=False):
        reports = _learn(jobs, progress)
        for name in MODELS:
            version = verbs.models_register(output, name, jobs[name].output)
            verbs.models_promote(output, name, version.version, "champion")
        results: list[DemoResult] = []
        verbs.serve(served, progress=progress, until=lambda live: results.append(_show(live, reports, began, until)))
    if missed := _shortfalls(reports):
        raise LlmrayError("; ".join(missed))
    return results[0]


def _endpoints(jobs: dict[str, Job]) -> list[dict[str, Any]]:
    return [
        {"model": f"registry:{name}@champion", "task": jobs[name].task.model_dump()}  # type: ignore[union-attr]
        for name in MODELS
    ]


def _learn(jobs: dict[str, Job], progress: Progress) -> dict[str, EvaluateResult]:
    """Pretrain, sweep, fine-tune; score each model on held-out scenes."""
    reports = {}
    best: dict[str, Any] = {}
    for name, job in jobs.items():
        if job.tune:
            best = verbs.tune(job, progress=progress).best_values
            continue
        if name.startswith("qa"):
            job = load(job, [f"{key}={value}" for key, value in best.items()])
        run = verbs.train(job, progress=progress)
        if name != "encoder":
            told = (f"model.from={run.model}", "scale.workers=1", "scale.max_failures=0")
            reports[name] = verbs.evaluate(job, *told, progress=progress)
    return reports


def _shortfalls(reports: dict[str, EvaluateResult]) -> list[str]:
    from llmray.scoring.report import misses

    found = [f"{name}: {miss}" for name, goals in GOALS.items() for miss in misses(reports[name].metrics, goals)]
    writer = reports["writer"]
    if writer.baseline["perplexity"] < 4 * writer.metrics["perplexity"]:
        found.append(
            f"writer: perplexity {writer.metrics['perplexity']:.2f} is not 4 times below the unigram model's"
            f" {writer.baseline['perplexity']:.2f}"
        )
    if reports["qa"].metrics["exact_match"] <= reports["qa-scratch"].metrics["exact_match"]:
        found.append("qa: pretraining bought nothing over random weights")
    return found


def _show(
    live: ServeResult,
    reports: dict[str, EvaluateResult],
    began: float,
    until: Callable[[DemoResult], None] | None,
) -> DemoResult:
    """Ask every endpoint once over HTTP, open the page, and stay up as long as the caller wants."""
    from ui.app import launch

    key = os.environ.get("LLMRAY_API_KEY", "")
    page, close = launch(live.url, key=key)
    try:
        result = DemoResult(
            metrics={name: _headline(report) for name, report in reports.items()},
            urls={end.route: end.url for end in live.endpoints} | {"page": page},
            answers=_ask(live.url, key),
            seconds=time.monotonic() - began,
        )
        if until:
            until(result)
    finally:
        close()
    return result


def _ask(url: str, key: str) -> dict[str, str]:
    """One question to each endpoint, about a scene that no model has seen."""
    from llmray.corpus import shapes
    from ui.client import Client

    client = Client(url, key)
    scene = shapes.scene(0, "eval", 0)
    question = shapes.one_question(scene)
    return {
        "/qa": client.ask(question.question, question.context).value[0].answer,
        "/translate": client.translate(shapes.describe(scene)).value,
        "/caption": client.caption(shapes.draw(scene)).value,
        "/generate": list(client.write("There is a large", 24, 0.0))[-1].value,
    }


def _headline(report: EvaluateResult) -> dict[str, float]:
    shown = dict(report.metrics)
    return shown | {f"{name} (baseline)": value for name, value in report.baseline.items() if name in shown}
