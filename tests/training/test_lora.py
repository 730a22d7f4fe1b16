"""LoRA: what is frozen, what is learned, and that the merged model answers as the adapted one did."""

from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForQuestionAnswering, GPT2Config, GPT2LMHeadModel

from llmray.job.errors import JobError
from llmray.job.training import LoRA, Train
from llmray.training.lora import adapted, require_peft
from llmray.training.optim import optimizer

IDS = torch.arange(8)[None]


def writer() -> Any:
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=13, n_embd=8, n_layer=2, n_head=2, n_positions=16)).eval()


def test_only_additions_are_learned_and_merge_into_the_same_answers() -> None:
    model, before = writer(), writer()
    names = set(before.state_dict())
    additions = adapted(model, LoRA(rank=2))
    learned = {name for name, p in model.named_parameters() if p.requires_grad}
    assert len(learned) == 2 * 4 * 2  # layers × matrices × factors
    assert all("lora_" in name and ".h." in name for name in learned)
    assert torch.allclose(model(IDS).logits, before(IDS).logits)  # one factor of each begins at 0
    chosen = optimizer(model, Train(learning_rate=0.05))
    for _ in range(3):
        model(IDS, labels=IDS).loss.backward()
        chosen.step()
        chosen.zero_grad()
    answers = model(IDS).logits.detach()
    merged = additions.merge_and_unload()
    assert set(merged.state_dict()) == names
    assert torch.allclose(merged(IDS).logits, answers, atol=1e-5)
    assert not torch.allclose(answers, before(IDS).logits, atol=1e-2)
    assert torch.equal(merged.transformer.wte.weight, before.transformer.wte.weight)


def test_muon_learns_additions_though_there_is_nothing_else_to_learn() -> None:
    model = writer()
    adapted(model, LoRA(rank=2))
    chosen = optimizer(model, Train(optimizer="muon", learning_rate=0.05))
    before = model(IDS, labels=IDS).loss.item()
    for _ in range(3):
        model(IDS, labels=IDS).loss.backward()
        chosen.step()
        chosen.zero_grad()
    assert model(IDS, labels=IDS).loss.item() < before


def test_a_head_that_may_be_new_is_learned_whole() -> None:
    size = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    model: Any = BertForQuestionAnswering(BertConfig(vocab_size=13, **size))  # type: ignore[arg-type]
    adapted(model, LoRA(targets=("query", "value")))
    learned = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name for name in learned if "lora_" not in name} == {"qa_outputs.weight", "qa_outputs.bias"}
    assert len(learned) == 2 * 2 + 2


def test_targets_that_no_matrix_has_are_named() -> None:
    with pytest.raises(JobError, match=r"train\.lora\.targets: no matrix is named q_proj; there are c_attn, c_fc"):
        adapted(writer(), LoRA(targets=("q_proj",)))


def test_without_peft_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    require_peft()
    monkeypatch.setattr("llmray.training.lora.find_spec", lambda name: None)
    with pytest.raises(JobError, match=r"pip install 'llmray\[lora\]'"):
        require_peft()
