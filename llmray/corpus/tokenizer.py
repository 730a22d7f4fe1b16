"""Subword tokenizers, trained on any texts, and what they make of texts.  It does not know what the texts are for."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from llmray.corpus.encode import encoder_of
from llmray.corpus.record import Columns, Conversation, Document, Example, Pair, Picture, Question, Record

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<mask>")

Kind: TypeAlias = Literal["bpe", "wordpiece", "unigram"]


@dataclass(frozen=True, slots=True)
class TokenizerReport:
    """What a tokenizer makes of texts; shares are from 0 to 1."""

    tokens: int
    bytes_per_token: float
    """Of UTF-8: the more, the shorter are the model's inputs."""
    vocabulary_used: float
    """Share of the vocabulary that occurs."""
    unknown: float
    """Share of the tokens that stand for what the vocabulary cannot express."""


def train(
    texts: Iterable[str], vocab_size: int, kind: Kind = "bpe", extra: Sequence[str] = ()
) -> PreTrainedTokenizerFast:
    """Train BPE or unigram over UTF-8 bytes, where any text is expressible and comes back as it was, or WordPiece.

    WordPiece (https://arxiv.org/abs/1609.08144) splits as BERT does, cased: words come back, blanks do not always, and
    words with characters never seen are `<unk>`.  The same texts give the same BPE (https://arxiv.org/abs/1508.07909);
    WordPiece and unigram (https://arxiv.org/abs/1804.10959) break ties as they come.  Texts become `<s> A </s>`, pairs
    `<s> A </s> B </s>`; `add_special_tokens=False` leaves them bare.  `extra` are special tokens beside the usual.
    """
    core = _wordpiece() if kind == "wordpiece" else _byte_level(kind)
    core.train_from_iterator(texts, _trainer(kind, vocab_size, [*SPECIAL, *extra]))
    places = [(token, core.token_to_id(token)) for token in ("<s>", "</s>")]
    framed = processors.TemplateProcessing(single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=places)
    offsets = [] if kind == "wordpiece" else [processors.ByteLevel(trim_offsets=True)]
    core.post_processor = processors.Sequence([*offsets, framed])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        mask_token="<mask>", cls_token="<s>", sep_token="</s>", model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False, extra_special_tokens=list(extra),
    )  # fmt: skip


def _byte_level(kind: Kind) -> Tokenizer:
    core = Tokenizer(models.BPE() if kind == "bpe" else models.Unigram())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return core


def _wordpiece() -> Tokenizer:
    core = Tokenizer(models.WordPiece(unk_token="<unk>"))
    core.normalizer = normalizers.BertNormalizer(lowercase=False)
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece()
    return core


def _trainer(kind: Kind, vocab_size: int, special: list[str]) -> trainers.Trainer:
    size: dict[str, Any] = {"vocab_size": vocab_size, "special_tokens": special, "show_progress": False}
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if kind == "bpe":
        return trainers.BpeTrainer(initial_alphabet=alphabet, **size)
    if kind == "unigram":
        return trainers.UnigramTrainer(initial_alphabet=alphabet, unk_token="<unk>", **size)
    return trainers.WordPieceTrainer(**size)


def describe(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> TokenizerReport:
    """Encode texts, bare of begin and end tokens, and count."""
    ids = np.concatenate([np.empty(0, dtype=np.int32), *encoder_of(tokenizer)(texts)])
    unknown = 0 if tokenizer.unk_token_id is None else np.count_nonzero(ids == tokenizer.unk_token_id)
    return TokenizerReport(
        tokens=len(ids),
        bytes_per_token=sum(len(text.encode()) for text in texts) / max(len(ids), 1),
        vocabulary_used=len(np.unique(ids)) / len(tokenizer),
        unknown=int(unknown) / max(len(ids), 1),
    )


def fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash of which token has which id."""
    return hashlib.sha256(repr(sorted(tokenizer.get_vocab().items())).encode()).hexdigest()


def texts_of(columns: Columns, record: type[Record]) -> Iterator[str]:
    """Every text in a batch of records."""
    if record is Picture:
        yield from (str(caption) for captions in columns["captions"] for caption in captions)
        return
    if record is Conversation:
        yield from (str(message["content"]) for messages in columns["messages"] for message in messages)
        return
    names = {Document: ("text",), Example: ("text",), Pair: ("source", "target"), Question: ("question", "context")}
    for name in names[record]:
        yield from (str(text) for text in columns[name])
