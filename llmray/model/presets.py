"""`new:FAMILY-SIZE` → a `transformers` config, made to measure for a tokenizer and a task.

It does not build weights.  Sizes named like a published model have its shape.  There is no dropout: small models
learn faster without it.
"""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers import (
    BertConfig,
    GPT2Config,
    LlamaConfig,
    MarianConfig,
    ModernBertConfig,
    PretrainedConfig,
    PreTrainedTokenizerBase,
    RobertaConfig,
    T5Config,
    VisionEncoderDecoderConfig,
    ViTConfig,
    ViTImageProcessorPil,
)

from llmray.job.errors import JobError


@dataclass(frozen=True)
class Size:
    """Shape of a transformer: model width, layers, attention heads, feed-forward width."""

    width: int
    layers: int
    heads: int
    feed_forward: int

    @property
    def spread(self) -> float:
        """Standard deviation of initial weights: 0.02 from 768 up, more for narrow models, which need it to learn."""
        return max(0.02, 0.7 * self.width**-0.5 if self.width < 768 else 0.0)


TINY, MINI, SMALL = Size(128, 2, 4, 512), Size(256, 4, 4, 1024), Size(512, 6, 8, 2048)
BASE, MEDIUM, LARGE = Size(768, 12, 12, 3072), Size(1024, 24, 16, 4096), Size(1280, 36, 20, 5120)
SIZES = {"tiny": TINY, "mini": MINI, "small": SMALL}

PRESETS: dict[str, dict[str, Size]] = {
    "gpt2": SIZES | {"base": BASE, "medium": MEDIUM, "large": LARGE, "xl": Size(1600, 48, 25, 6400)},
    "llama": SIZES | {"base": Size(768, 12, 12, 2048), "1b": Size(2048, 16, 32, 8192), "8b": Size(4096, 32, 32, 14336)},
    "bert": SIZES | {"base": BASE, "large": MEDIUM},
    "roberta": SIZES | {"base": BASE, "large": MEDIUM},
    "modernbert": {
        "tiny": Size(128, 2, 4, 192),
        "mini": Size(256, 4, 4, 384),
        "small": Size(512, 6, 8, 768),
        "base": Size(768, 22, 12, 1152),
        "large": Size(1024, 28, 16, 2624),
    },
    "t5": SIZES | {"base": BASE, "large": MEDIUM},
    "marian": SIZES | {"base": Size(512, 6, 8, 2048)},
    "vit-gpt2": {"tiny": TINY, "mini": MINI, "small": SMALL, "base": BASE},
}

FAMILIES_OF: dict[str, tuple[str, ...]] = {
    "causal_lm": ("gpt2", "llama"),
    "masked_lm": ("bert", "roberta", "modernbert"),
    "span_corruption": ("t5",),
    "classification": ("bert", "roberta", "modernbert", "gpt2", "llama"),
    "qa": ("bert", "roberta", "modernbert"),
    "translation": ("marian", "t5"),
    "captioning": ("vit-gpt2",),
    "chat": ("gpt2", "llama"),
}

POSITIONS = {"gpt2": 1024, "llama": 8192, "modernbert": 8192, "vit-gpt2": 1024}
"""Fewest positions of the published sizes; 512 in families not named here."""

PICTURE = {"tiny": (96, 32), "mini": (128, 16), "small": (224, 16), "base": (224, 16)}
"""Side of the picture and of a patch, in pixels, by size."""


WHITE = [1.0] * 3
"""Pixels are counted from white, so that an empty ground is 0 and does not drown what is drawn on it."""


def names(task_name: str | None = None) -> list[str]:
    """Every preset, or those that fit a task."""
    families = FAMILIES_OF[task_name] if task_name else tuple(PRESETS)
    return [f"{family}-{size}" for family in families for size in PRESETS[family]]


def new_config(
    preset: str, tokenizer: PreTrainedTokenizerBase, task_name: str, positions: int = 512
) -> PretrainedConfig:
    """A config with the tokenizer's vocabulary and special ids.  Raises `JobError` listing what fits the task."""
    family, size = _split(preset, task_name)
    return _MAKERS[family](PRESETS[family][size], size, _ids(tokenizer), max(positions, _least(family, size)))


def _least(family: str, size: str) -> int:
    """Positions that a preset has at least; an encoder's are enough for question answering after short blocks."""
    if size not in SIZES:
        return POSITIONS.get(family, 512)
    return 512 if family in FAMILIES_OF["qa"] else 128


def image_processor(preset: str) -> ViTImageProcessorPil:
    """The image processor that goes with a `vit-gpt2` preset.  Raises `JobError`."""
    _split(preset, "captioning")
    side, _ = PICTURE[preset.rsplit("-", 1)[1]]
    return ViTImageProcessorPil(size={"height": side, "width": side}, image_mean=WHITE, image_std=[2.0] * 3)


def _split(preset: str, task_name: str) -> tuple[str, str]:
    allowed = names(task_name)
    if preset in allowed:
        family, _, size = preset.rpartition("-")
        return family, size
    near = difflib.get_close_matches(preset, allowed, 1, 0.4)
    reason = f"does not do {task_name}" if preset in names() else "is no preset"
    raise JobError(
        f"model.from: new:{preset} {reason}; allowed for {task_name}: {', '.join(allowed)}"
        + (f"; did you mean new:{near[0]}?" if near else "")
    )


def _ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else end
    if end is None:
        raise JobError(
            "model.tokenizer: has neither an end token (eos) nor a separator (sep); a model could never stop"
        )
    begin = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else end
    return {"vocab_size": len(tokenizer), "pad_token_id": pad, "bos_token_id": begin, "eos_token_id": end}


def _gpt2(size: Size, _: str, ids: dict[str, Any], positions: int) -> GPT2Config:
    return GPT2Config(
        n_embd=size.width, n_layer=size.layers, n_head=size.heads, n_inner=size.feed_forward, n_positions=positions,
        initializer_range=size.spread, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **ids,
    )  # fmt: skip


def _llama(size: Size, _: str, ids: dict[str, Any], positions: int) -> LlamaConfig:
    return LlamaConfig(
        hidden_size=size.width, num_hidden_layers=size.layers, num_attention_heads=size.heads,
        num_key_value_heads=max(1, size.heads // 4), intermediate_size=size.feed_forward,
        max_position_embeddings=positions, tie_word_embeddings=size.width < 4096,
        initializer_range=size.spread, **ids,
    )  # fmt: skip


def _encoder(size: Size, ids: dict[str, Any], positions: int) -> dict[str, Any]:
    return {
        "hidden_size": size.width, "num_hidden_layers": size.layers, "num_attention_heads": size.heads,
        "intermediate_size": size.feed_forward, "max_position_embeddings": positions, "hidden_dropout_prob": 0.0,
        "initializer_range": size.spread,
        "attention_probs_dropout_prob": 0.0,
    } | ids  # fmt: skip


def _bert(size: Size, _: str, ids: dict[str, Any], positions: int) -> BertConfig:
    return BertConfig(**_encoder(size, ids, positions))


def _roberta(size: Size, _: str, ids: dict[str, Any], positions: int) -> RobertaConfig:
    # RoBERTa counts positions from pad_token_id + 1.
    return RobertaConfig(**_encoder(size, ids, positions + ids["pad_token_id"] + 1), type_vocab_size=1)


def _modernbert(size: Size, name: str, ids: dict[str, Any], positions: int) -> ModernBertConfig:
    return ModernBertConfig(
        hidden_size=size.width, num_hidden_layers=size.layers, num_attention_heads=size.heads,
        intermediate_size=size.feed_forward, max_position_embeddings=positions, cls_token_id=ids["bos_token_id"],
        sep_token_id=ids["eos_token_id"],
        global_attn_every_n_layers=1 if name in SIZES else 3,  # few layers must see the whole text in each
        tie_word_embeddings=name not in SIZES,
        sparse_prediction=True,
        initializer_range=size.spread, **ids,
    )  # fmt: skip


def _t5(size: Size, _: str, ids: dict[str, Any], positions: int) -> T5Config:
    return T5Config(
        d_model=size.width, num_layers=size.layers, num_heads=size.heads, d_ff=size.feed_forward,
        d_kv=size.width // size.heads, dropout_rate=0.0, feed_forward_proj="relu",
        decoder_start_token_id=ids["pad_token_id"], **ids,
    )  # fmt: skip


def _marian(size: Size, _: str, ids: dict[str, Any], positions: int) -> MarianConfig:
    return MarianConfig(
        d_model=size.width, encoder_layers=size.layers, decoder_layers=size.layers,
        encoder_attention_heads=size.heads, decoder_attention_heads=size.heads, encoder_ffn_dim=size.feed_forward,
        decoder_ffn_dim=size.feed_forward, max_position_embeddings=positions, dropout=0.0, scale_embedding=True,
        decoder_start_token_id=ids["pad_token_id"], forced_eos_token_id=None, **ids,
    )  # fmt: skip


def _vit_gpt2(size: Size, name: str, ids: dict[str, Any], positions: int) -> VisionEncoderDecoderConfig:
    side, patch = PICTURE[name]
    encoder = ViTConfig(
        hidden_size=size.width, num_hidden_layers=size.layers, num_attention_heads=size.heads,
        intermediate_size=size.feed_forward, image_size=side, patch_size=patch, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, initializer_range=size.spread,
    )  # fmt: skip
    decoder = _gpt2(size, name, ids, positions)
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    config.decoder_start_token_id, config.pad_token_id = ids["bos_token_id"], ids["pad_token_id"]
    config.eos_token_id = ids["eos_token_id"]
    return config


_MAKERS: dict[str, Callable[[Size, str, dict[str, Any], int], PretrainedConfig]] = {
    "gpt2": _gpt2,
    "llama": _llama,
    "bert": _bert,
    "roberta": _roberta,
    "modernbert": _modernbert,
    "t5": _t5,
    "marian": _marian,
    "vit-gpt2": _vit_gpt2,
}
