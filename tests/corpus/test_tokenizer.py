"""Any text survives the tokenizers over bytes, words survive WordPiece; training BPE is deterministic."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from llmray.corpus.record import Document, Pair, Picture, Question
from llmray.corpus.tokenizer import describe, fingerprint, texts_of, train

TEXTS = ["a large red circle", "a small blue square", "ein großer roter Kreis"] * 20
TOKENIZER = train(TEXTS, 320)
UNIGRAM = train(TEXTS, 320, "unigram")
WORDPIECE = train(TEXTS, 320, "wordpiece")


def test_training_is_deterministic():
    assert train(TEXTS, 320).get_vocab() == TOKENIZER.get_vocab()


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_any_text_comes_back(text):
    for tokenizer in (TOKENIZER, UNIGRAM):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.unk_token_id not in ids or "<unk>" in text
        assert tokenizer.decode(ids) == text


def test_words_come_back_from_wordpiece():
    ids = WORDPIECE("ein  large Kreis, reda", add_special_tokens=False)["input_ids"]
    assert WORDPIECE.convert_ids_to_tokens(ids) == ["ein", "large", "Kreis", "<unk>", "red", "##a"]
    assert WORDPIECE.decode(ids) == "ein large Kreis <unk> reda"


def test_fingerprint_tells_vocabularies_apart():
    assert fingerprint(train(TEXTS, 320)) == fingerprint(TOKENIZER) != fingerprint(train(TEXTS, 300))


@pytest.mark.parametrize("tokenizer", [TOKENIZER, UNIGRAM, WORDPIECE], ids=["bpe", "unigram", "wordpiece"])
def test_texts_and_pairs_are_framed(tokenizer):
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    one = tokenizer("a")["input_ids"]
    assert (one[0], one[-1]) == (begin, end)
    assert tokenizer("a", "b")["input_ids"].count(end) == 2
    assert "token_type_ids" not in tokenizer("a")
    assert tokenizer.convert_tokens_to_ids(["<pad>", "<s>", "</s>", "<unk>", "<mask>"]) == [0, 1, 2, 3, 4]


def test_report_by_hand():
    report = describe(WORDPIECE, ["red red", "", "größe a"])
    assert (report.tokens, report.unknown, report.bytes_per_token) == (4, 1 / 4, 16 / 4)
    assert report.vocabulary_used == 3 / len(WORDPIECE)
    assert describe(TOKENIZER, ["größe"]).unknown == 0
    assert describe(TOKENIZER, []).tokens == 0


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
