"""Ray Tune end to end: a sweep finds what learns and writes its three files."""

import re
import time
from pathlib import Path

import httpx
import pyarrow.parquet as pq
import pytest
import ray

from llmray.job.errors import JobError
from llmray.job.load import load
from llmray.job.results import TuneResult
from llmray.job.schema import Job
from llmray.search.run import tune
from llmray.store.journal import Progress

pytestmark = pytest.mark.usefixtures("ray_cluster")


SHAPES = Path(__file__).with_name("shapes.yaml")


def job_of(output: Path, *overrides: str) -> Job:
    train = "train={steps: 30, eval_every: 10, batch_size: 16}"
    space = "{train.learning_rate: [1e-7, 3e-3, 1e30], train.batch_size: [8, 16]}"
    tune = f"tune={{space: {space}, trials: 6, concurrent: 2, grace_steps: 10}}"
    return load(SHAPES, [train, tune, f"output={output}", *overrides])


@pytest.fixture(scope="module")
def swept(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TuneResult]:
    output = tmp_path_factory.mktemp("sweep")
    return output, tune(job_of(output), Progress.silent())


def test_the_rate_that_learns_wins(swept: tuple[Path, TuneResult]) -> None:
    output, result = swept
    assert result.best_values["train.learning_rate"] == 3e-3
    assert result.trials == 6
    assert result.stopped_early >= 1
    best = load(output / "best.yaml")
    assert best.train.learning_rate == 3e-3
    assert best.train.batch_size == result.best_values["train.batch_size"]
    assert best.tune is None
    assert best.output != str(output)


def test_every_trial_is_a_row(swept: tuple[Path, TuneResult]) -> None:
    output, result = swept
    rows = pq.read_table(output / "trials.parquet").to_pylist()
    assert len(rows) == 6
    assert {row["status"] for row in rows if row["train.learning_rate"] == 1e30} == {"diverged"}
    assert {row["status"] for row in rows if row["train.learning_rate"] < 1} <= {"finished", "stopped early"}
    assert all(row["step"] == 30 for row in rows if row["status"] == "finished")
    assert min(row["eval_loss"] for row in rows) == result.value
    html = (output / "sweep.html").read_text()
    assert html.count("<svg") == 3
    assert "train.learning_rate" in html


def test_prometheus_is_told_of_the_trials(tmp_path: Path) -> None:
    tune(job_of(tmp_path, "train.loggers=[prometheus]", "tune.trials=2"), Progress.silent())
    url = f"http://127.0.0.1:{ray.nodes()[0]['MetricsExportPort']}/metrics"
    wanted = {"metric", "trials", "best", "steps"}
    seen, deadline = set[str](), time.monotonic() + 60
    while seen != wanted and time.monotonic() < deadline:  # Ray hands gauges on every ten seconds
        time.sleep(0.5)
        told = httpx.get(url, timeout=60).text
        seen = set(re.findall(rf'ray_llmray_tune_(\w+){{.*run="{tmp_path}"', told))
    assert seen == wanted


def test_the_same_command_again_does_nothing(swept: tuple[Path, TuneResult]) -> None:
    output, result = swept
    began = time.monotonic()
    assert tune(job_of(output), Progress.silent()) == result
    assert time.monotonic() - began < 1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tune.space={train.batch_size: [3]}", "batch_size=3"),
        ("tune.space={train.lr: [3]}", r"train\.lr"),
        ("tune.metric=accuracy", "eval_loss, loss"),
        ("data.eval=[]", r"data\.eval"),
    ],
)
def test_bad_searches_are_refused_before_anything_starts(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(JobError, match=message):
        tune(job_of(tmp_path, "scale.workers=2", override), Progress.silent())
    assert not list(tmp_path.iterdir())
