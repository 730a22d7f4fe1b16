"""The fast encoder gives the tokenizer's own ids for any text, or stands aside."""

import pickle

import numpy as np
import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from llmray.corpus.encode import BLANKS, BYTES, LLAMA3, Fast, Own, encoder_of
from llmray.corpus.tokenizer import train

CORPUS = [
    "It's what they've said: we'd DON'T, I'm, she'll; you're 12 of 3456 and 78901!\r\n\r\n\tSo\tit is...   so it was.",
    "Größe, naïve café, e\u0301te\u0301 — “quoted” ‘single’ words’ ends", "日本語の文章と中文。한국어 문장",
    "السلام عليكم ١٢٣", "👩\u200d👩\u200d👧 👍🏽 🇩🇪 ❤️", "aaaaaaaaaaaaaa bananana hahaha ===== .....", "\n\n   \n  \n",
] * 4  # fmt: skip
WORDS = sorted({word for text in CORPUS for word in text.split(" ")})
HARD = [
    *("'s", "'S", "'\u017f", "’s", "'ll", "'LL", " 've", "e\u0301", "\u0301", "\u200d", "\ufe0f", "ﬁ", "ß", "İ", "Å"),
    *("\r\n", "\r", "\n", "\t", "\0", "\x1c", "\x85", "\xa0", "\u2028", "\u3000", " ", "  ", "1234567", "٣", "½", "Ⅷ"),
    *("<s>", "</s>", "<mask>", "<s", "<|end|>", "<|end|>>", "<extra>", "<plain>", "word<plain>s", "  <extra>  "),
    *("a" * 300, " " * 300, "\n" * 40, "ab" * 200, "=" * 150, "日" * 120, "é" * 130),
]
BY_BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False)
TEXTS = st.lists(st.sampled_from(HARD + WORDS) | st.text(max_size=8)).map("".join) | st.text()


def trained(pattern=None, normalizer=None, **model):
    """Byte-level BPE as published ones are made; special tokens come after the vocabulary."""
    core = Tokenizer(models.BPE(**model))
    core.normalizer = normalizer
    core.pre_tokenizer = BY_BYTES
    if pattern is not None:
        by_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        core.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), by_bytes])
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet))
    core.add_special_tokens(["<|end|>", AddedToken("<extra>", lstrip=True, rstrip=True)])
    core.add_tokens(["<plain>"])
    return PreTrainedTokenizerFast(tokenizer_object=core)


def with_every_merge(tokenizer):
    """As converted from tiktoken's files, like Llama 3: every way to spell a token from two others, by token."""
    core = tokenizer.backend_tokenizer
    vocab = core.get_vocab(with_added_tokens=False)
    merges = [(token[:i], token[i:]) for token in sorted(vocab, key=vocab.__getitem__) for i in range(1, len(token))]
    core.model = models.BPE(vocab, [pair for pair in merges if vocab.keys() >= set(pair)], ignore_merges=True)
    return PreTrainedTokenizerFast(tokenizer_object=core)


TOKENIZERS = {
    "ours": train(CORPUS, 500),
    "gpt2": trained(),
    "llama3": with_every_merge(trained(LLAMA3 + BLANKS)),
    "qwen2": trained(LLAMA3.replace("{1,3}", "") + BLANKS, normalizers.NFC()),
}
ENCODERS = {name: encoder_of(tokenizer) for name, tokenizer in TOKENIZERS.items()}


def same(tokenizer, encode, texts):
    for text, ids in zip(texts, encode(texts), strict=True):
        assert ids.dtype == np.int32
        assert ids.tolist() == tokenizer(text, add_special_tokens=False)["input_ids"], text


@pytest.mark.parametrize("name", TOKENIZERS)
def test_published_forms_are_fast(name):
    assert isinstance(ENCODERS[name], Fast)
    assert ENCODERS[name]([]) == []
    same(TOKENIZERS[name], ENCODERS[name], [*HARD, *CORPUS, ""])


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=60, deadline=None)
@given(text=TEXTS)
def test_ids_are_the_same(name, text):
    same(TOKENIZERS[name], ENCODERS[name], [text])


@pytest.mark.parametrize("kind", [r"\p{L}", r"\p{N}", r"\s", "(?i:s)"])
def test_both_libraries_know_the_same_letters_digits_and_blanks(kind):
    every = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x34000)]))
    bytes_ = {bytes([byte]): byte for byte in range(256)}
    found = tiktoken.Encoding("test", pat_str=kind, mergeable_ranks=bytes_, special_tokens={"</s>": 256})
    others = normalizers.Replace(Regex(kind), "").normalize_str(every)
    assert sorted(found.decode(found.encode_ordinary(every)) + others) == sorted(every)


def test_a_million_blanks_are_not_too_many():
    text = " " * 1_050_000 + "x"
    assert TOKENIZERS["ours"].decode(ENCODERS["ours"]([text])[0]) == text


def of_merges(merges, ignore_merges, pre_tokenizer=BY_BYTES):
    vocab = {token: at for at, token in enumerate(dict.fromkeys([*map("".join, merges), *BYTES]))}
    core = Tokenizer(models.BPE(vocab, merges, ignore_merges=ignore_merges))
    core.pre_tokenizer = pre_tokenizer
    return PreTrainedTokenizerFast(tokenizer_object=core)


@settings(max_examples=60, deadline=None)
@given(
    choices=st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), min_size=1, max_size=12),
    ignore_merges=st.booleans(),
    texts=st.lists(st.text("ab", max_size=40), min_size=1, max_size=20),
    draw=st.none() | st.randoms(),
)
def test_any_list_of_merges(choices, ignore_merges, texts, draw):
    """No training would make these; whichever are taken for fast give the same ids."""
    tokens, merges = ["a", "b"], []
    for left, right in choices:
        merges.append((tokens[left % len(tokens)], tokens[right % len(tokens)]))
        tokens.append("".join(merges[-1])[:40])
    merges = list(dict.fromkeys(pair for pair in merges if len("".join(pair)) < 40))
    if draw is not None:
        draw.shuffle(merges)
    tokenizer = of_merges(merges, ignore_merges)
    same(tokenizer, encoder_of(tokenizer), texts)


def test_a_token_that_its_bytes_do_not_become():
    merges = [("b", "c"), ("a", "b"), ("ab", "c")]  # of a, b, c the last two join first: "abc" is out of reach
    tokenizer = of_merges(merges, ignore_merges=False)
    assert isinstance(encoder_of(tokenizer), Fast)
    assert tokenizer.convert_ids_to_tokens(encoder_of(tokenizer)(["abc"])[0].tolist()) == ["a", "bc"]
    tokenizer = of_merges(merges, ignore_merges=True)  # a word of its own, but never a part of one
    assert isinstance(encoder_of(tokenizer), Own)
    same(tokenizer, encoder_of(tokenizer), ["abc", "abcabc"])


def test_merges_of_one_token_that_lie_apart():
    assert isinstance(encoder_of(of_merges([("a", "b"), ("b", "b"), ("a", "bb"), ("ab", "b")], False)), Fast)
    assert isinstance(encoder_of(of_merges([("b", "b"), ("a", "bb"), ("a", "b"), ("ab", "b")], False)), Own)


@pytest.mark.parametrize(
    "tokenizer",
    [
        train(CORPUS, 320, "unigram"),
        train(CORPUS, 320, "wordpiece"),
        trained(normalizer=normalizers.Lowercase()),
        trained(LLAMA3.replace("{1,3}", "{1,2}") + BLANKS),
        of_merges([("a", "b")], False, pre_tokenizers.ByteLevel(add_prefix_space=True)),
        of_merges([("a", "b")], False, pre_tokenizers.Whitespace()),
        PreTrainedTokenizerFast(tokenizer_object=trained().backend_tokenizer, split_special_tokens=True),
        ByT5Tokenizer(),
    ],
)
def test_other_tokenizers_keep_to_themselves(tokenizer):
    encode = encoder_of(tokenizer)
    assert not isinstance(encode, Fast)
    assert encode([]) == []
    same(tokenizer, encode, [*HARD, *CORPUS])


def test_dropout_keeps_to_itself():
    assert isinstance(encoder_of(trained(dropout=0.1)), Own)


def test_truncation_and_padding_of_an_earlier_call_are_forgotten():
    for tokenizer in (train(CORPUS, 320), train(CORPUS, 320, "unigram")):
        tokenizer(["a b c", "a"], truncation=True, max_length=3, padding="max_length")
        same(tokenizer, encoder_of(tokenizer), ["x y z w", "", "<mask><mask>"])


@pytest.mark.parametrize("name", TOKENIZERS)
def test_encoders_travel(name):
    same(TOKENIZERS[name], pickle.loads(pickle.dumps(ENCODERS[name])), CORPUS)
