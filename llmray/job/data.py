"""The `data` section of a job file: sources, what is cleaned out of them, the tokenizer.

It does not read any of them.  As in `schema`, a field's docstring is its only documentation.
"""

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field

from llmray.job.section import Section

PersonalKind = Literal["email", "ip", "phone", "iban", "card", "national_id"]


class Source(Section):
    path: str
    """A file, folder, glob or URI (`.jsonl`, `.csv`, `.parquet`, `.txt`, `.json` in SQuAD's or COCO's form, crawls,
    MediaWiki dumps, WebDataset tars, pictures, a prepared store), `hf:OWNER/NAME?split=train`, or
    `builtin:shapes?rows=N&split=train`. Compressed text (.gz, .bz2, .xz, .zst) is read as it is."""
    target: str | None = None
    """For parallel text: the file whose lines translate those of `path`."""
    images: str | None = None
    """For captions: the folder or `.tar` that holds the pictures that rows name."""
    columns: dict[str, str] = Field({})
    """Our column → yours, or a template of yours in braces: `{text: body, image: "img/{id}.png"}`."""
    where: dict[str, str | int | float | bool | list[str]] = Field({})
    """Keep only rows whose columns have these values (a list: any of them)."""
    limit: int | None = Field(None, ge=1)
    """Read at most this many rows."""
    weight: float | None = Field(None, gt=0)
    """This source's share of the rows that are learned from, beside the others' weights; all sources have one or none.
    Sources without weights are read one after another, each row once an epoch."""


def _sources(value: Any) -> Any:
    return [{"path": v} if isinstance(v, str) else v for v in (value if isinstance(value, (list, tuple)) else [value])]


Sources = Annotated[
    tuple[Source, ...],
    BeforeValidator(_sources, json_schema_input_type=str | Source | list[str | Source]),
]


class Tokenizer(Section):
    vocab_size: int = Field(8000, ge=300)
    """Size of the vocabulary that is trained when the model brings none."""
    kind: Literal["bpe", "wordpiece", "unigram"] = "bpe"
    """Byte-level BPE (any text is expressible), WordPiece as BERT's, or unigram as T5's."""
    sample_rows: int = Field(20_000, ge=1)
    """Rows of the training sources that the tokenizer is trained on."""


class C4(Section):
    """C4's rules (https://arxiv.org/abs/1910.10683): unwanted lines are removed, then whole pages judged."""

    final_marks: bool = True
    """Keep only lines that end with a sentence's final mark. FineWeb leaves this rule out: it costs 30 % of tokens."""
    curly_brackets: bool = False
    """Keep pages that have a curly bracket, which is mostly code."""
    min_line_words: int = Field(5, ge=1)
    """Words in a line, at least."""
    max_word_chars: int = Field(1000, ge=1)
    """Characters in a word of a line, at most."""
    min_sentences: int = Field(3, ge=1)
    """Sentences in what is left of a page, at least."""


class Gopher(Section):
    """Gopher's rules of quality (https://arxiv.org/abs/2112.11446, appendix A.1.1)."""

    min_words: int = Field(50, ge=0)
    """Words, at least; a letter of a script without spaces counts as one."""
    max_words: int = Field(100_000, ge=1)
    """Words, at most."""
    min_mean_word_chars: float = Field(3, ge=0)
    """Mean length of a word, at least (in scripts with spaces)."""
    max_mean_word_chars: float = Field(10, gt=0)
    """Mean length of a word, at most (in scripts with spaces)."""
    max_symbols_per_word: float = Field(0.1, ge=0)
    """Hashes for each word, and ellipses for each word, at most."""
    max_bullet_lines: float = Field(0.9, ge=0, le=1)
    """Share of lines that begin with a bullet, at most."""
    max_ellipsis_lines: float = Field(0.3, ge=0, le=1)
    """Share of lines that end with an ellipsis, at most."""
    min_alphabetic_words: float = Field(0.8, ge=0, le=1)
    """Share of words with a letter, at least."""
    min_stop_words: int = Field(2, ge=0)
    """Different stop words, at least."""
    stop_words: dict[str, tuple[str, ...]] = Field({"en": ("the", "be", "to", "of", "and", "that", "have", "with")})
    """Stop words by language (ISO 639-1); other languages are not asked for any."""


class Repetition(Section):
    """Gopher's rules of repetition (https://arxiv.org/abs/2112.11446, table A1): shares, at most."""

    max_duplicate_lines: float = Field(0.3, ge=0, le=1)
    """Lines that equal an earlier one."""
    max_duplicate_line_chars: float = Field(0.2, ge=0, le=1)
    """Characters in such lines."""
    max_duplicate_paragraphs: float = Field(0.3, ge=0, le=1)
    """Paragraphs that equal an earlier one."""
    max_duplicate_paragraph_chars: float = Field(0.2, ge=0, le=1)
    """Characters in such paragraphs."""
    top_ngrams: dict[int, float] = Field({2: 0.2, 3: 0.18, 4: 0.16})
    """n → characters in the most frequent n words in a row."""
    duplicate_ngrams: dict[int, float] = Field({5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.1})
    """n → characters in n words in a row that occurred before."""


class FineWeb(Section):
    """FineWeb's own rules (https://arxiv.org/abs/2406.17557, section 3.6)."""

    min_punctuated_lines: float = Field(0.12, ge=0, le=1)
    """Share of lines that end with a final mark: more than this."""
    max_short_lines: float = Field(0.67, ge=0, le=1)
    """Share of short lines: less than this (in scripts with spaces)."""
    short_line_chars: int = Field(30, ge=0)
    """A line with fewer characters is short."""
    max_duplicate_line_chars: float = Field(0.1, ge=0, le=1)
    """Share of characters in lines that equal an earlier one: less than this."""
    max_newlines_per_word: float = Field(0.3, ge=0)
    """Line ends for each word, at most."""


class Quality(Section):
    """Rules for web text; null leaves a group out."""

    c4: C4 | None = C4()
    gopher: Gopher | None = Gopher()
    repetition: Repetition | None = Repetition()
    fineweb: FineWeb | None = FineWeb()


class Personal(Section):
    """What becomes of personal data in documents."""

    action: Literal["mask", "drop"] = "mask"
    """`mask`: each place becomes its kind, as `<EMAIL>`; `drop`: the whole document goes."""
    kinds: tuple[PersonalKind, ...] = get_args(PersonalKind)
    """What is looked for; card, bank and identity numbers by their checksums."""
    regions: tuple[str, ...] = ("US", "GB", "DE", "FR", "ES", "IT", "NL", "PL")
    """Countries (ISO 3166) as whose people telephone and identity numbers are read."""
    names: str | None = None
    """A token-classification model (hub id, folder or registry reference) that finds names of persons too."""


class Clean(Section):
    """What is done to documents before they are learned from; `prepare` only. Text is always made uniform: mojibake
    repaired, NFC, plain spaces and line ends."""

    languages: tuple[str, ...] = ()
    """Languages (ISO 639-1) that are kept; none given: all."""
    language_score: float = Field(0.65, ge=0, le=1)
    """Least probability of the language."""
    quality: Quality | None = None
    """Rules for text of the web; `{}` takes all with their published thresholds."""
    duplicates: Literal["near", "exact"] | None = "near"
    """Of copies among all sources the first stays. `exact`: the same words; `near`: also by MinHash of 5-grams, 14
    bands of 8 (FineWeb's), which finds 77 % of pairs with a Jaccard similarity of 0.75 and 92 % at 0.8."""
    personal: Personal | None = None
    """What becomes of personal data; null leaves it."""
    evaluation: Sources = ()
    """Held-out sources: documents that share a run of 13 words with one are dropped (GPT-3's rule,
    https://arxiv.org/abs/2005.14165)."""


class Data(Section):
    train: Sources = ()
    """What to learn from: one source or a list."""
    eval: Sources = ()
    """Held-out rows, for validation and `evaluate`: one source or a list."""
    clean: Clean | None = None
    """Cleaning of documents by `prepare`; null leaves them as they are."""
    on_error: Literal["skip", "fail"] | None = None
    """What `prepare` does with a record that cannot be read: `skip` puts it, with its place and the reason, into the
    store's quarantine and counts it; `fail` stops at once. By default crawls are skipped over, and others fail."""
    tokenizer: Tokenizer = Tokenizer()
    shuffle_rows: int = Field(0, ge=0)
    """Rows held in memory to shuffle among, from the train seed; 0 keeps the corpus's order. A prepared store is
    shuffled as a whole, anew each epoch, whatever the number."""
