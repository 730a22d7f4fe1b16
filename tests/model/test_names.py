"""Names of persons are found by a model that learned them, wherever they are in a text; other models are refused."""

import random
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForTokenClassification

from llmray.corpus.personal import find, mask
from llmray.corpus.tokenizer import train
from llmray.job.errors import ModelError
from llmray.model.names import Names

PEOPLE = ("Anna", "Boris", "Clara", "Dimitri", "Emma", "Farid")
SENTENCES = ("Ask {} now .", "Then {} saw a red star .", "A blue circle is below , says {} .")
LABELS = {0: "O", 1: "B-PER"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that was taught six names in a few seconds."""
    made = tmp_path_factory.mktemp("names")
    texts = [sentence.format(name) for sentence in SENTENCES for name in PEOPLE]
    tokenizer = train(texts, 300, "wordpiece")
    torch.manual_seed(0)
    size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    config = BertConfig(
        vocab_size=len(tokenizer), max_position_embeddings=64, id2label=LABELS, hidden_dropout_prob=0.0, **size
    )
    model = BertForTokenClassification(config)
    optimizer, draw = torch.optim.AdamW(model.parameters(), lr=1e-2), random.Random(0)
    names = {i for name in PEOPLE for i in tokenizer(name, add_special_tokens=False)["input_ids"]}
    for _ in range(100):
        told = [" ".join(draw.choices(texts, k=draw.randint(1, 4))) for _ in range(16)]
        batch = tokenizer(told, return_tensors="pt", padding=True)
        labels = torch.isin(batch["input_ids"], torch.tensor(sorted(names))).long()
        model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(made)
    tokenizer.save_pretrained(made)
    return made


def test_names_are_masked_among_the_other_kinds(folder: Path) -> None:
    text = "Ask Clara now . Then Farid saw a red star . Write to joe@example.com ."
    masked = mask(text, find(text, recogniser=Names(str(folder))))
    assert masked == "Ask <NAME> now . Then <NAME> saw a red star . Write to <EMAIL> ."


def test_a_text_longer_than_the_model_is_read_to_its_end(folder: Path) -> None:
    text = " ".join(["A blue circle is below , says Emma ."] * 40)
    assert [text[found.start : found.end] for found in Names(str(folder))(text)] == ["Emma"] * 40


def test_a_model_that_tells_no_persons_is_refused(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace("B-PER", "B-LOC"))
    with pytest.raises(ModelError, match="tells no persons; its labels are LOC, O"):
        list(Names(str(tmp_path))("Ask Anna ."))
    with pytest.raises(ModelError, match="tells no persons; its labels are LOC, O"):
        Names(str(tmp_path)).require()
    Names(str(folder)).require()
    with pytest.raises(ModelError, match=r"no such model folder; give a folder .* or new:PRESET"):
        list(Names(str(tmp_path / "none"))(""))
