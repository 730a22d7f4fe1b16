"""Whole words are hidden whole; where they begin is what the tokenizer itself says of the text."""

import pytest
import torch

from llmray.corpus import shapes
from llmray.corpus.record import Document
from llmray.corpus.tokenizer import Kind, train
from llmray.job.task import MaskedLM
from llmray.tasks import make
from llmray.tasks.base import Processor
from llmray.tasks.words import Words

TEXTS = [d.text for d in shapes.records(Document, 0, "train", 0, 100)]
UNSEEN = "Unbelievably, 12 hedgehogs (grüße!) waltzed\nacross 3.14159 triangles and squares."


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "unigram"])
def test_words_begin_where_the_tokenizer_says(kind: Kind) -> None:
    tokenizer = train(TEXTS, 400, kind)
    for text in (UNSEEN, TEXTS[0]):
        encoded = tokenizer(text)
        ids, words = encoded["input_ids"], encoded.word_ids()
        first = [i if word is None else words.index(word) for i, word in enumerate(words)]
        assert Words(tokenizer).firsts(torch.tensor([ids])).tolist() == [first]


@pytest.mark.parametrize("kind", ["bpe", "wordpiece"])
def test_words_are_hidden_whole(kind: Kind) -> None:
    tokenizer = train(TEXTS[:20], 380, kind)
    task = make(MaskedLM(seq_len=64, whole_word=True, mask_share=0.3), Processor(tokenizer))
    features = task.encode({"text": [text + " " + UNSEEN for text in TEXTS]})
    labels = task.collate(features)["labels"]
    ids = torch.where(labels == -100, 0, labels)
    whole = torch.nn.utils.rnn.pad_sequence([torch.tensor(block) for block in features["input_ids"]], True, 0)
    firsts = Words(tokenizer).firsts(whole)
    hidden = (labels != -100)[:, : whole.shape[1]]
    assert torch.equal(hidden, hidden.gather(1, firsts))
    assert torch.equal(ids[:, : whole.shape[1]][hidden], whole[hidden])
    assert (firsts != torch.arange(whole.shape[1])).any()
    real = ~torch.isin(whole, torch.tensor(tokenizer.all_special_ids))
    assert hidden.sum() / real.sum() == pytest.approx(0.3, abs=0.03)
    alone = make(MaskedLM(seq_len=64, mask_share=0.3), Processor(tokenizer)).collate(features)["labels"] != -100
    assert not torch.equal(alone[:, : whole.shape[1]], alone[:, : whole.shape[1]].gather(1, firsts))
