"""Texts → arrays of token ids, the same ids as the tokenizer's own and several times sooner where that can be shown.

It does not know what the ids are for.  A byte-level BPE tokenizer whose every rule is understood runs on `tiktoken`;
any other one runs on `tokenizers` as it is, and so does a single text that needs a rule which `tiktoken` has not.
"""

import json
import re
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeAlias

import numpy as np
import tiktoken
from numpy.typing import NDArray
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

Ids: TypeAlias = NDArray[np.int32]
Encode: TypeAlias = Callable[[Sequence[str]], list[Ids]]
"""Texts → the ids of each, bare of begin and end tokens; special tokens written in a text are recognised."""

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+"
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
BLANKS = r"|\s+(?!\S)|\s+"
"""How the known patterns end: the last blank of a run belongs to the word after it."""
PATTERNS = {head + BLANKS for head in (GPT2, LLAMA3, LLAMA3.replace("{1,3}", ""))}
"""Pre-tokenizers of GPT-2, Llama 3 and Qwen 2: they leave no character out, and mean the same to both libraries."""

PRINTED = (*range(33, 127), *range(161, 173), *range(174, 256))
BYTES = {chr(byte): byte for byte in PRINTED} | {
    chr(256 + n): byte for n, byte in enumerate(sorted(set(range(256)).difference(PRINTED)))
}
"""Characters of a byte-level vocabulary → bytes, as in https://github.com/openai/gpt-2/blob/master/src/encoder.py."""

WORDS = 100_000
"""Words whose ids a core remembers."""

NO_SPECIAL = "\0no special token\0"
"""`tiktoken` is slow without any special token; this one is never allowed, so it is text like any other."""


def encoder_of(tokenizer: PreTrainedTokenizerBase) -> Encode:
    """The fastest encoder with exactly this tokenizer's ids; takes seconds for a large vocabulary, so keep it.

    Later changes to the tokenizer are not seen.
    """
    if not isinstance(tokenizer, PreTrainedTokenizerFast) or tokenizer.split_special_tokens:
        return Slow(tokenizer)
    state = json.loads(tokenizer.backend_tokenizer.to_str()) | {"truncation": None, "padding": None}
    own = Own(_remembering(Tokenizer.from_str(json.dumps(state))))
    return _fast(state, own) or own


def _remembering(core: Tokenizer) -> Tokenizer:
    """The core with room for a corpus's usual words, of which it remembers 10,000: a fifth sooner for unigram."""
    model = core.model
    if hasattr(model, "_resize_cache"):
        model._resize_cache(WORDS)
        core.model = model
    return core


@dataclass(frozen=True, slots=True)
class Slow:
    """A tokenizer without a `tokenizers` core, or one that must be told something at each call."""

    tokenizer: PreTrainedTokenizerBase

    def __call__(self, texts: Sequence[str]) -> list[Ids]:
        found = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []
        return [np.array(ids, dtype=np.int32) for ids in found]


@dataclass(frozen=True, slots=True)
class Own:
    """The core of a fast tokenizer, bare of truncation, padding and the offsets that nobody asks for."""

    core: Tokenizer

    def __call__(self, texts: Sequence[str]) -> list[Ids]:
        found = self.core.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(one.ids, dtype=np.int32) for one in found]


@dataclass(frozen=True, slots=True)
class Fast:
    """Byte-level BPE by `tiktoken`: `ids` are those of its ranks, `hard` finds the added tokens it does not know."""

    encoding: tiktoken.Encoding
    ids: Ids
    special: frozenset[str]
    hard: re.Pattern[str] | None
    own: Own
    nfc: bool

    def __call__(self, texts: Sequence[str]) -> list[Ids]:
        return [self._one(text) for text in texts]

    def _one(self, text: str) -> Ids:
        normal = self.own.core.normalizer.normalize_str(text) if self.nfc and not text.isascii() else text
        if self.hard is not None and any(map(self.hard.search, {text, normal})):
            return self.own([text])[0]
        try:
            ranks = self.encoding.encode_to_numpy(normal, allowed_special=self.special, disallowed_special=())
        except ValueError:  # a million blanks on end are more than its regular expressions bear
            return self.own([text])[0]
        return self.ids.take(ranks)


def _fast(state: dict[str, Any], own: Own) -> Fast | None:
    """The tokenizer on `tiktoken`, or nothing where one of its rules is not among those known to agree."""
    pattern, model, nfc = _pattern(state["pre_tokenizer"]), state["model"], state["normalizer"] == {"type": "NFC"}
    if pattern is None or not (nfc or state["normalizer"] is None) or not _is_plain(model):
        return None
    added = {token["content"]: token for token in state["added_tokens"]}
    ranks = _ranks(model, added)
    if ranks is None:
        return None
    special = [] if nfc else [content for content, token in added.items() if _is_simple(token, added)]
    hard = sorted(added.keys() - set(special))
    numbers = {content: len(ranks) + n for n, content in enumerate(special or [NO_SPECIAL])}
    ids = [model["vocab"][token] for token in ranks] + [added[content]["id"] for content in special]
    mergeable = {bytes(map(BYTES.__getitem__, token)): rank for rank, token in enumerate(ranks)}
    encoding = tiktoken.Encoding("llmray", pat_str=pattern, mergeable_ranks=mergeable, special_tokens=numbers)
    search = re.compile("|".join(map(re.escape, hard))) if hard else None
    return Fast(encoding, np.array(ids, dtype=np.int32), frozenset(special), search, own, nfc)


def _pattern(pre_tokenizer: dict[str, Any] | None) -> str | None:
    """The pattern that cuts text into words, if known; what needs no look ahead is grouped, for `tiktoken`'s speed."""
    match pre_tokenizer:
        case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}:
            pattern = GPT2 + BLANKS
        case {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
            ],
        } if pattern in PATTERNS:
            pass
        case _:
            return None
    return f"(?:{pattern.removesuffix(BLANKS)}){BLANKS}"


def _is_plain(model: dict[str, Any]) -> bool:
    """Whether it is BPE over all 256 bytes that draws no lots (dropout) and marks no ends of words."""
    marks = ("dropout", "continuing_subword_prefix", "end_of_word_suffix")
    return model["type"] == "BPE" and not any(model[mark] for mark in marks) and model["vocab"].keys() >= BYTES.keys()


def _is_simple(token: dict[str, Any], added: Iterable[str]) -> bool:
    """Whether this added token is found wherever it stands, and never instead of another one."""
    marked = any(token[mark] for mark in ("single_word", "lstrip", "rstrip", "normalized"))
    content = token["content"]
    return not marked and sum(one.startswith(content) or content.startswith(one) for one in added) == 1


def _ranks(model: dict[str, Any], added: Container[str]) -> list[str] | None:
    """Tokens in the order of their merges, bytes first; nothing where `tiktoken` would join other pairs.

    Both libraries join the best pair of neighbours, leftmost first, as long as there is one: `tokenizers` the pair
    listed first, `tiktoken`, which has no list, the pair that spells the token of lowest rank.  Neighbours are always
    something that their own bytes, encoded alone, pass through: so the one pair that can ever spell a token is the last
    one in the encoding of that token alone.  Hence the two agree if the list keeps the merges of each token together,
    and a token that its own bytes do not become has no rank, or (under `ignore_merges`, which looks words up whole)
    they stay more than two.
    """
    merges = [(left, right) for left, right in model["merges"]]
    order = [token for token, _ in groupby(left + right for left, right in merges)]
    if len(set(order)) < len(order):
        return None
    bare = models.BPE(model["vocab"], merges)
    parts = {token: len(bare.tokenize(token)) for token in model["vocab"] if BYTES.keys() >= set(token)}
    ranks = [*BYTES, *(token for token in order if parts.get(token) == 1)]
    if not model["ignore_merges"]:
        return ranks
    whole = [token for token in parts if parts[token] > 1 and token not in added]
    return None if any(parts[token] == 2 for token in whole) else ranks + whole
