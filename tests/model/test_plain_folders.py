"""Folders that `transformers` alone wrote, with its own configs, are loaded for every task that they can do."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoTokenizer, PreTrainedModel

from llmray.job.schema import Model
from llmray.model.load import build, processor
from llmray.model.predict import Predictor
from llmray.tasks import make
from llmray.tasks.base import Request

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


def gpt2(tokens: int) -> PreTrainedModel:
    config = transformers.GPT2Config(vocab_size=tokens, n_embd=32, n_layer=2, n_head=2, bos_token_id=2, eos_token_id=2)
    return transformers.GPT2LMHeadModel(config)


def llama(tokens: int) -> PreTrainedModel:
    config = transformers.LlamaConfig(vocab_size=tokens, bos_token_id=1, eos_token_id=2, **SMALL)
    return transformers.LlamaForCausalLM(config)


def bert(tokens: int) -> PreTrainedModel:
    return transformers.BertForMaskedLM(transformers.BertConfig(vocab_size=tokens, **SMALL))


def roberta(tokens: int) -> PreTrainedModel:
    config = transformers.RobertaConfig(
        vocab_size=tokens, max_position_embeddings=514, type_vocab_size=1, pad_token_id=0, **SMALL
    )
    return transformers.RobertaForMaskedLM(config)


def t5(tokens: int) -> PreTrainedModel:
    config = transformers.T5Config(
        vocab_size=tokens, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, pad_token_id=0, eos_token_id=2,
        decoder_start_token_id=0,
    )  # fmt: skip
    return transformers.T5ForConditionalGeneration(config)


def marian(tokens: int) -> PreTrainedModel:
    config = transformers.MarianConfig(
        vocab_size=tokens, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64, pad_token_id=0, eos_token_id=2,
        forced_eos_token_id=2, decoder_start_token_id=0,
    )  # fmt: skip
    return transformers.MarianMTModel(config)


def pictures(tokens: int) -> PreTrainedModel:
    encoder = transformers.ViTConfig(image_size=32, patch_size=16, **SMALL)
    decoder = transformers.GPT2Config(vocab_size=tokens, n_embd=32, n_layer=2, n_head=2, eos_token_id=2)
    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    config.decoder_start_token_id, config.pad_token_id = 1, 0
    return transformers.VisionEncoderDecoderModel(config)


TEXT, TALK = {"text": "A red star."}, {"messages": [{"role": "user", "content": "Hi"}]}
WORKS: list[tuple[str, Callable[[int], PreTrainedModel], dict[str, Any]]] = [
    ("causal_lm", gpt2, TEXT), ("chat", gpt2, TALK), ("causal_lm", llama, TEXT), ("chat", llama, TALK),
    ("masked_lm", bert, {"text": "A <mask> star."}), ("masked_lm", roberta, {"text": "A <mask> star."}),
    ("translation", t5, TEXT), ("span_corruption", t5, {"text": "A<extra_id_0> star."}),
    ("translation", marian, TEXT), ("captioning", pictures, {}),
]  # fmt: skip
HEADLESS = [("classification", one) for one in (gpt2, llama, bert, roberta)] + [("qa", one) for one in (bert, roberta)]


@pytest.fixture
def written(tokenizer_folder: str, tmp_path: Path) -> Callable[[Callable[[int], PreTrainedModel]], PreTrainedModel]:
    """Writes a random model to `tmp_path` as its authors would."""

    def one(make_one: Callable[[int], PreTrainedModel]) -> PreTrainedModel:
        tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
        torch.manual_seed(0)
        model = make_one(len(tokenizer))
        model.save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        if make_one is pictures:
            transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
        return model.eval()

    return one


@pytest.mark.parametrize(("name", "family", "inputs"), WORKS)
def test_it_answers_at_once(name: str, family: Any, inputs: Any, written: Any, options: Any, tmp_path: Path) -> None:
    plain = written(family)
    predictor = Predictor.load(str(tmp_path), options(name), device="cpu")
    for (key, ours), theirs in zip(predictor.model.state_dict().items(), plain.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), key
    asked = inputs or {"image": (Path(__file__).parents[2] / "docs" / "images" / "page.png").read_bytes()}
    [answer] = predictor.predict([Request(asked, {} if name == "masked_lm" else {"max_new_tokens": 4})])
    assert isinstance(answer, dict), answer


@pytest.mark.parametrize(("name", "family"), HEADLESS)
def test_it_gets_a_new_head_on_its_own_body(name: str, family: Any, written: Any, options: Any, tmp_path: Path) -> None:
    plain = written(family)
    section = Model.model_validate({"from": str(tmp_path)})
    task = make(options(name), processor(section))
    model = build(section, task)
    own = {key: weight for key, weight in model.base_model.state_dict().items() if "pooler" not in key}
    assert own.keys() == plain.base_model.state_dict().keys()
    assert all(torch.equal(weight, plain.base_model.state_dict()[key]) for key, weight in own.items())
    assert model.config.pad_token_id is not None
