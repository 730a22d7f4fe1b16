"""Presets have the shape of what they are named after, and what fits the tokenizer and the task."""

import pytest
import torch
import transformers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from llmray.corpus.tokenizer import train
from llmray.job.errors import JobError
from llmray.model import presets
from llmray.tasks import TASKS


class Vocabulary(PreTrainedTokenizerFast):
    """A tokenizer that only says how large it is."""

    def __init__(self, size: int, tokenizer: PreTrainedTokenizerFast) -> None:
        super().__init__(tokenizer_object=tokenizer.backend_tokenizer, pad_token="<pad>", eos_token="</s>")
        self.size = size

    def __len__(self) -> int:
        return self.size


def parameters(preset: str, task: str, vocabulary: int) -> int:
    tokenizer = Vocabulary(vocabulary, train(["a"], 300))
    config = presets.new_config(preset, tokenizer, task)
    with torch.device("meta"):
        model = getattr(transformers, TASKS[task].auto_class).from_config(config)
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("preset", "task", "vocabulary", "published"),
    [
        ("gpt2-base", "causal_lm", 50_257, 124_439_808),
        ("gpt2-medium", "causal_lm", 50_257, 354_823_168),
        ("gpt2-xl", "causal_lm", 50_257, 1_557_611_200),
        ("bert-base", "masked_lm", 30_522, 109_514_298),
        ("roberta-base", "masked_lm", 50_265, 124_697_433 - 768),  # our pad is 0, theirs 1: one position less
        ("modernbert-base", "masked_lm", 50_368, 149_655_232),
        ("t5-small", "translation", 32_128, 60_506_624),
        ("t5-base", "translation", 32_128, 222_903_552),
        ("llama-1b", "causal_lm", 128_256, 1_235_814_400),
        ("llama-8b", "causal_lm", 128_256, 8_030_261_248),
    ],
)
def test_published_sizes_have_as_many_parameters(preset: str, task: str, vocabulary: int, published: int) -> None:
    assert parameters(preset, task, vocabulary) == published


@pytest.mark.parametrize(("task", "preset"), [(t, p) for t in presets.FAMILIES_OF for p in presets.names(t)])
def test_every_preset_makes_a_config_from_the_tokenizer(task: str, preset: str, tokenizer_folder: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    config = presets.new_config(preset, tokenizer, task, 300)
    text = config.get_text_config(decoder=True)
    assert text.vocab_size == len(tokenizer)
    assert (text.pad_token_id, text.eos_token_id) == (tokenizer.pad_token_id, tokenizer.eos_token_id)
    if task == "translation":
        assert config.decoder_start_token_id == tokenizer.pad_token_id
    if task == "captioning":
        assert config.decoder_start_token_id == tokenizer.bos_token_id
        side = presets.image_processor(preset).size
        assert config.encoder.image_size == side["height"] == side["width"]
        assert config.encoder.image_size % config.encoder.patch_size == 0
        assert config.decoder.add_cross_attention
        assert config.decoder.is_decoder
    if hasattr(text, "max_position_embeddings"):
        assert text.max_position_embeddings >= 300


@pytest.mark.parametrize("family", ["bert", "roberta", "modernbert"])
def test_an_encoder_pretrained_on_short_blocks_can_read_questions(family: str, tokenizer_folder: str) -> None:
    """The default block has 128 tokens, the default question with its context 384."""
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    assert presets.new_config(f"{family}-tiny", tokenizer, "masked_lm", 128).max_position_embeddings >= 384


@pytest.mark.parametrize(
    ("preset", "task", "words"),
    [
        ("gpt2-tiny", "qa", "new:gpt2-tiny does not do qa; allowed for qa: bert-tiny, .*roberta-tiny"),
        ("bert-tiny", "causal_lm", "does not do causal_lm; allowed for causal_lm: gpt2-tiny"),
        ("gpt2-tny", "causal_lm", "is no preset; .*did you mean new:gpt2-tiny"),
        ("gpt2", "causal_lm", "is no preset; .*did you mean new:gpt2"),
        ("", "translation", "is no preset; allowed for translation: marian-tiny"),
        ("bert-tiny", "captioning", "does not do captioning; allowed for captioning: vit-gpt2-tiny"),
    ],
)
def test_a_wrong_preset_is_told_what_fits(preset: str, task: str, words: str, tokenizer_folder: str) -> None:
    with pytest.raises(JobError, match=words):
        presets.new_config(preset, AutoTokenizer.from_pretrained(tokenizer_folder), task)


def test_an_unknown_picture_preset_is_named() -> None:
    with pytest.raises(JobError, match="new:vit-gpt2-huge is no preset"):
        presets.image_processor("vit-gpt2-huge")


def test_a_tokenizer_without_an_end_is_refused() -> None:
    bare = PreTrainedTokenizerFast(tokenizer_object=train(["a"], 300).backend_tokenizer)
    with pytest.raises(JobError, match="neither an end token"):
        presets.new_config("gpt2-tiny", bare, "causal_lm")
