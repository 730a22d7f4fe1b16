"""Metrics agree with hand counts and, to the last printed digit, with published scores."""

import gzip
import json
import math

import pytest

from llmray.tasks import metrics


def test_squad_normalisation_by_hand():
    assert metrics.normalised("The  quick, brown-fox!") == "quick brownfox"
    assert metrics.exact_match("the Fox.", ["a fox", "dog"]) == 1.0
    assert metrics.exact_match("fox", ["dog"]) == 0.0


def test_f1_by_hand():
    # answer: big red fox (3), reference: red fox (2), common 2 → precision 2/3, recall 1
    assert metrics.token_f1("big red fox", ["red fox"]) == pytest.approx(0.8)
    assert metrics.token_f1("cat", ["dog"]) == 0.0


def test_perplexity_and_unigram_by_hand():
    assert metrics.perplexity(math.log(8) * 5, 5) == pytest.approx(8)
    # counts a:2 b:1 of 3 tokens, vocabulary 3, add one → a 3/6, b 2/6, c 1/6
    nll, tokens = metrics.unigram_nll([0, 0, 1], [0, 2], 3)
    assert tokens == 2
    assert nll == pytest.approx(-math.log(3 / 6) - math.log(1 / 6))


def lines(path):
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return file.read().splitlines()


@pytest.mark.parametrize("system", ["Online-B", "OpenNMT"])
def test_wmt22_scores_are_the_published_ones(shared_data, system):
    folder = shared_data / "metrics" / "wmt22"
    expected = json.loads((folder / "expected.json").read_text())["scores"][f"en-de/{system}"]
    hypotheses = lines(folder / f"generaltest2022.en-de.hyp.{system}.de.gz")
    a, b = (lines(folder / f"generaltest2022.en-de.ref.{name}.de.gz") for name in "AB")
    for name, references in (
        ("A", [[r] for r in a]),
        ("B", [[r] for r in b]),
        ("all", [*map(list, zip(a, b, strict=True))]),
    ):
        scores = metrics.translation_scores(hypotheses, references)
        assert scores == {"bleu": expected[f"bleu-{name}"], "chrf": expected[f"chrf-{name}"]}


def test_squad_predictions_score_as_published(shared_data):
    folder = shared_data / "squad"
    with gzip.open(folder / "dev-v1.1.json.gz") as file:
        data = json.load(file)["data"]
    gold = {q["id"]: [a["text"] for a in q["answers"]] for d in data for p in d["paragraphs"] for q in p["qas"]}
    official = json.loads((folder / "predictions" / "official_scores.json").read_text())
    for name, expected in official.items():
        with gzip.open(folder / "predictions" / name) as file:
            told = json.load(file)
        asked = [(told[i], refs) for i, refs in gold.items() if i in told]
        for metric, score in (("exact_match", metrics.exact_match), ("f1", metrics.token_f1)):
            assert 100 * sum(score(*pair) for pair in asked) / len(gold) == pytest.approx(expected[metric], abs=1e-9)
