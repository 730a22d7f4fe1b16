"""Conversations in the forms that people keep them in; those of the built-in corpus are true of their scenes."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmray.corpus import shapes
from llmray.corpus.record import Conversation

TALK = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
SHAREGPT = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        ({"messages": TALK}, {}),
        ({"conversations": SHAREGPT, "id": "x"}, {}),
        ({"messages": [m | {"name": None} for m in TALK]}, {}),
        ({"talk": SHAREGPT}, {"messages": "talk"}),
    ],
)
def test_messages_of_openai_and_sharegpt_in_json_and_parquet(
    row: dict[str, Any], columns: dict[str, str], tmp_path: Path, gather: Any
) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "b.parquet")
    for name in ("a.jsonl", "b.parquet"):
        assert gather(Conversation, path=str(tmp_path / name), columns=columns) == ([{"messages": TALK}], [])


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ("hello", "messages is a list of {role, content}; found 'hello'"),
        ([], "messages is a list of {role, content}; found []"),
        ([{"role": "user"}], "messages is a list of {role, content}; found [{'role': 'user'}]"),
        ([{"role": "user", "content": ["a"]}], "content is text; found ['a']"),
        ([None], "messages is a list of {role, content}; found [None]"),
    ],
)
def test_a_row_that_is_no_conversation_is_named(messages: Any, words: str, tmp_path: Path, gather: Any) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"messages": messages}))
    good, [bad] = gather(Conversation, path=str(tmp_path / "a.jsonl"))
    assert good == []
    assert bad.where.endswith("a.jsonl, line 1")
    assert bad.reason == words


def test_scenes_are_talked_about_in_turn_and_no_question_comes_twice() -> None:
    turns = set()
    for number in range(300):
        scene = shapes.scene(0, "train", number)
        [made] = shapes.records(Conversation, 0, "train", number, number + 1)
        asked, told = made.messages[::2], made.messages[1::2]
        assert {m["role"] for m in asked} == {"user"}
        assert {m["role"] for m in told} == {"assistant"}
        text = shapes.describe(scene)
        assert asked[0]["content"].startswith(text + " ")
        questions = [asked[0]["content"][len(text) + 1 :], *(m["content"] for m in asked[1:])]
        assert len(set(questions)) == len(questions) == len(told)
        known = {q.question: q.answers for q in shapes.questions(scene)}
        for question, answer in zip(questions, told, strict=True):
            right = [a["text"].lower() for a in known.get(question, [])]  # each question has two wordings
            assert not right or answer["content"].lower().rstrip(".") in right
        turns.add(len(told))
    assert turns == {1, 2, 3}
