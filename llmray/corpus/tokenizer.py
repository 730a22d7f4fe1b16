"""A byte-level BPE tokenizer, trained on any texts.  It does not know what they are for."""

import hashlib
from collections.abc import Iterable, Iterator

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from llmray.corpus.record import Columns, Document, Example, Pair, Picture, Question, Record

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<mask>")


def train(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train byte-level BPE (https://arxiv.org/abs/1508.07909 over UTF-8 bytes): any text is expressible, none unknown.

    Texts become `<s> A </s>`, pairs `<s> A </s> B </s>`; `add_special_tokens=False` leaves them bare.
    """
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    places = [(token, bpe.token_to_id(token)) for token in ("<s>", "</s>")]
    framed = processors.TemplateProcessing(single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=places)
    bpe.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=True), framed])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        mask_token="<mask>", cls_token="<s>", sep_token="</s>", model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


def fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash of which token has which id."""
    return hashlib.sha256(repr(sorted(tokenizer.get_vocab().items())).encode()).hexdigest()


def texts_of(columns: Columns, record: type[Record]) -> Iterator[str]:
    """Every text in a batch of records."""
    if record is Picture:
        yield from (str(caption) for captions in columns["captions"] for caption in captions)
        return
    names = {Document: ("text",), Example: ("text",), Pair: ("source", "target"), Question: ("question", "context")}
    for name in names[record]:
        yield from (str(text) for text in columns[name])
