"""`.json`: a list of rows, SQuAD's form and COCO's; damage in one entry leaves the others."""

import json

import pytest

from llmray.corpus.record import Document, Picture, Question

ANSWER = {"text": "Ann", "answer_start": 0}


def test_a_list_of_objects(tmp_path, gather):
    (tmp_path / "a.json").write_text('[{"text": "a"}, 1, {"text": "b"}]')
    found, (bad,) = gather(Document, path=str(tmp_path / "a.json"))
    assert [row["text"] for row in found] == ["a", "b"]
    assert (bad.where[-6:], bad.kind) == ("item 2", "wrong row")


def test_squad_with_questions_that_have_no_answer(tmp_path, gather):
    """SQuAD v2.0 (https://arxiv.org/abs/1806.03822): an impossible question's plausible answers are none."""
    questions = [
        {"id": "1", "question": "Who sings?", "answers": [ANSWER], "is_impossible": False},
        {"id": "2", "question": "Who cries?", "answers": [], "is_impossible": True, "plausible_answers": [ANSWER]},
        {"id": "3", "question": "Who laughs?", "is_impossible": True},
        {"id": "4", "question": "Who?"},
    ]
    paragraphs = [{"context": "Ann sings.", "qas": questions}]
    tree = {"version": "v2.0", "data": [{"title": "T", "paragraphs": paragraphs}, {"title": "U"}]}
    (tmp_path / "s.json").write_text(json.dumps(tree))
    found, bad = gather(Question, path=str(tmp_path / "s.json"))
    assert [row["answers"] for row in found] == [[{"text": "Ann", "start": 0}], [], []]
    assert [(one.where.split(", ")[1], one.kind) for one in bad] == [
        ("question 4", "wrong column"),
        ("article 2", "wrong form"),
    ]
    only = gather(Question, path=str(tmp_path / "s.json"), where={"is_impossible": True}, limit=2)
    assert [row["id"] for row in only[0]] == ["2", "3"]


def test_coco_with_damaged_entries(tmp_path, gather, png):
    (tmp_path / "x.png").write_bytes(png)
    tree = {
        "images": [{"id": 1, "file_name": "x.png"}, {"id": 2}, {"id": 3, "file_name": "y.png"}],
        "annotations": [
            {"image_id": 1, "caption": "a"},
            {"image_id": 2, "caption": "b"},
            {"caption": "c"},
            {"image_id": 3, "caption": "d"},
            {"image_id": 4, "caption": "e"},
        ],
    }
    (tmp_path / "c.json").write_text(json.dumps(tree))
    found, bad = gather(Picture, path=str(tmp_path / "c.json"), images=str(tmp_path))
    assert found == [{"image": png, "captions": ["a"]}]
    assert [(one.where.split(", ")[1], one.kind) for one in bad] == [
        ("annotation 3", "wrong form"),
        ("image 2", "wrong form"),
        ("image 3", "no picture"),
        ("image_id 4", "no picture"),
    ]


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b'{"rows": []}', "wrong form"),
        (b"7", "wrong form"),
        (b'{"a": 1}\n{"a": 2}\n', "not JSON"),
        (b'["\xff"]', "not UTF-8"),
        (b" \n", "empty file"),
        (b"[]", "empty file"),
    ],
)
def test_what_is_none_of_these(tmp_path, gather, content, kind):
    (tmp_path / "a.json").write_bytes(content)
    found, (bad,) = gather(Document, path=str(tmp_path / "a.json"))
    assert (found, bad.kind) == ([], kind)
