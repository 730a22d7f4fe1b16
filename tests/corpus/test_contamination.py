"""A training text that holds a run of an evaluation text's words is found, and no other."""

import gzip
import json
import pickle

from hypothesis import given, settings
from hypothesis import strategies as st

from llmray.corpus.contamination import Contamination

EIGHT = "Which river runs through the city of Trier?"


def spoken(first: int, last: int) -> str:
    return " ".join(f"w{at}" for at in range(first, last))


def test_thirteen_words_in_a_row_are_found_twelve_are_not():
    evaluation = Contamination([spoken(0, 40)])
    assert evaluation.found(f"before {spoken(20, 33)} after") == spoken(20, 33)
    assert evaluation.found(f"before {spoken(20, 32)} after {spoken(33, 40)}") is None
    assert evaluation.found(spoken(0, 40)) == spoken(0, 13)
    assert evaluation.found("") is None


def test_case_spacing_and_punctuation_count_for_nothing():
    assert Contamination([EIGHT]).found("Asked “which  RIVER—runs\nthrough the city of Trier”.") == EIGHT.lower()[:-1]


def test_short_texts_are_sought_whole_and_the_shortest_not_at_all():
    evaluation = Contamination([spoken(0, 10), EIGHT, "too short to say", ""])
    assert evaluation.too_short == 2
    assert evaluation.found(f"a {spoken(0, 10)} b") == spoken(0, 10)
    assert evaluation.found(f"a {spoken(0, 9)} b") is None
    assert evaluation.found("He had nothing, and that was too short to say") is None


def test_longest_run_first():
    evaluation = Contamination([EIGHT, spoken(0, 20)])
    assert evaluation.found(f"{EIGHT} {spoken(3, 16)}") == spoken(3, 16)


def test_n_is_a_choice():
    assert Contamination([spoken(0, 40)], n=5).found(f"a {spoken(7, 12)} b") == spoken(7, 12)
    assert Contamination([spoken(0, 5), spoken(0, 4)], n=5).too_short == 1


def test_chinese_by_characters():
    evaluation = Contamination(["特里尔是德国最古老的城市之一，位于摩泽尔河畔。"])
    assert evaluation.found("有人说：特里尔是德国最古老的城市之一。") == " ".join("特里尔是德国最古老的城市之")
    assert evaluation.found("特里尔位于德国西部的摩泽尔河畔，是一座美丽的城市") is None


def test_nothing_to_seek():
    assert Contamination([]).found(spoken(0, 40)) is None
    assert Contamination(["short"]).too_short == 1


def test_pickled():
    evaluation = pickle.loads(pickle.dumps(Contamination([EIGHT, "no"])))
    assert evaluation.too_short == 1
    assert evaluation.found(EIGHT) == EIGHT.lower()[:-1]


@settings(deadline=None)
@given(
    st.lists(st.lists(st.sampled_from("abc"), max_size=20), max_size=4), st.lists(st.sampled_from("abc"), max_size=30)
)
def test_as_found_slowly(evaluation, text):
    sought = {tuple(one[at : at + 4]) for one in evaluation for at in range(len(one) - 3)}
    runs = [tuple(text[at : at + 4]) for at in range(len(text) - 3)]
    expected = next((" ".join(run) for run in runs if run in sought), None)
    assert Contamination(map(" ".join, evaluation), n=4).found(" ".join(text)) == expected


def test_squad_questions_within_prose(shared_data):
    articles = json.loads(gzip.decompress((shared_data / "squad" / "dev-v1.1.json.gz").read_bytes()))["data"]
    paragraphs = articles[0]["paragraphs"]
    questions = [question["question"] for paragraph in paragraphs for question in paragraph["qas"]]
    evaluation = Contamination(questions + [paragraph["context"] for paragraph in paragraphs])
    long = [text for text in questions if len(text.split()) >= 13]
    assert len(long) > 50
    assert all(evaluation.found(f"Someone asked: {text} Nobody knew.") for text in long)
    assert evaluation.found(paragraphs[0]["context"][40:]) is not None
    assert evaluation.found(spoken(0, 40)) is None
