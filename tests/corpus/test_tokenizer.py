"""Any text survives the tokenizer; training it is deterministic."""

from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from llmray.corpus.record import Document, Pair, Picture, Question
from llmray.corpus.tokenizer import fingerprint, texts_of, train

TEXTS = ["a large red circle", "a small blue square", "ein großer roter Kreis"] * 20
TOKENIZER = train(TEXTS, 320)


def test_training_is_deterministic():
    assert train(TEXTS, 320).get_vocab() == TOKENIZER.get_vocab()


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_any_text_comes_back(text):
    ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    assert TOKENIZER.unk_token_id not in ids or "<unk>" in text
    assert TOKENIZER.decode(ids) == text


def test_fingerprint_tells_vocabularies_apart():
    assert fingerprint(train(TEXTS, 320)) == fingerprint(TOKENIZER) != fingerprint(train(TEXTS, 300))


def test_texts_and_pairs_are_framed():
    begin, end = TOKENIZER.bos_token_id, TOKENIZER.eos_token_id
    one = TOKENIZER("a")["input_ids"]
    assert (one[0], one[-1]) == (begin, end)
    assert TOKENIZER("a", "b")["input_ids"].count(end) == 2
    assert "token_type_ids" not in TOKENIZER("a")


def test_folder_round_trip(tmp_path):
    TOKENIZER.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again("a red star", "größer")["input_ids"] == TOKENIZER("a red star", "größer")["input_ids"]
    assert (again.pad_token_id, again.mask_token_id) == (TOKENIZER.pad_token_id, TOKENIZER.mask_token_id)


def test_texts_of_every_record():
    assert list(texts_of({"text": ["a"]}, Document)) == ["a"]
    assert list(texts_of({"source": ["a"], "target": ["b"]}, Pair)) == ["a", "b"]
    assert list(texts_of({"question": ["q"], "context": ["c"]}, Question)) == ["q", "c"]
    assert list(texts_of({"captions": [["a", "b"]]}, Picture)) == ["a", "b"]
