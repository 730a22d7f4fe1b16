"""Which tokens of a row belong to one word.  It does not know what becomes of the words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from tokenizers import models

if TYPE_CHECKING:  # workers that only read need no model's code, whose import takes seconds
    from transformers import PreTrainedTokenizerBase

BLANK, LETTER, DIGIT, MARK, LINE = range(5)
BLANKS, LINES = "▁Ġ", "Ċĉč"
"""What SentencePiece and byte-level vocabularies write for a blank, which belongs to the word after it, and for line
ends and tabs, which belong to none."""


class Words:
    """Where words begin, token by token: WordPiece marks what does not begin one.

    Elsewhere a word begins with a blank, and where letters, digits and marks meet, as byte-level tokenizers cut text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        tokens = [token or " " for token in tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))]
        model = tokenizer.backend_tokenizer.model if tokenizer.is_fast else None
        if isinstance(model, models.WordPiece):
            inside = [token.startswith(model.continuing_subword_prefix) for token in tokens]
            self.begin, self.end = torch.tensor(inside).long() * LETTER, torch.full((len(tokens),), LETTER)
        else:
            self.begin, self.end = (torch.tensor([_kind(token[at]) for token in tokens]) for at in (0, -1))
        self.begin[tokenizer.all_special_ids], self.end[tokenizer.all_special_ids] = BLANK, LINE

    def firsts(self, ids: torch.Tensor) -> torch.Tensor:
        """For each token the place of its word's first one, both (rows, width)."""
        begin, end = self.begin[ids], self.end[ids]
        new = (begin[:, 1:] == BLANK) | ((begin[:, 1:] != end[:, :-1]) & (end[:, :-1] != BLANK))
        places = torch.arange(1, ids.shape[1]).expand_as(new)
        return torch.nn.functional.pad(torch.where(new, places, 0), (1, 0)).cummax(1).values


def _kind(character: str) -> int:
    """Bytes beyond ASCII count as letters, whatever they are a part of."""
    if character in BLANKS:
        return BLANK
    if character in LINES or character.isspace():
        return LINE
    if character.isalpha() or character > "\x7f":
        return LETTER
    return DIGIT if character.isdigit() else MARK
