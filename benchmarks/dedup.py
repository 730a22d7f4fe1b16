"""Plants edited copies among 20,000 real passages and counts which are found, as Markdown tables.

    python benchmarks/dedup.py [DATA]

Reads SQuAD's paragraphs and 200-word passages of novels below DATA, `data/` if absent (see configs/real).
"""

import gzip
import json
import lzma
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array, triu

from llmray.corpus.contamination import Contamination
from llmray.corpus.dedup import BANDS, NGRAM, ROWS, bands, duplicates, exact, ngrams, signature, word_hashes, words

PASSAGES = 20_000
PASSAGE_WORDS = 200
COPIES = 200
EDITED_PERCENT = (1, 2, 5, 10, 20, 40)
BOUNDS = (0.001, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.01)
ALIKE = 0.8


def paragraphs(data: Path) -> list[str]:
    """SQuAD's paragraphs."""
    articles = json.loads(gzip.decompress((data / "squad" / "dev-v1.1.json.gz").read_bytes()))["data"]
    return [paragraph["context"] for article in articles for paragraph in article["paragraphs"]]


def passages(data: Path, wanted: int) -> list[str]:
    """Passages of novels, evenly spread over all of them."""
    found = []
    for line in lzma.decompress((data / "lm" / "english_novels" / "train.jsonl.xz").read_bytes()).splitlines():
        novel = json.loads(line)["text"].split()
        starts = range(0, len(novel) - PASSAGE_WORDS, PASSAGE_WORDS)
        found += [" ".join(novel[at : at + PASSAGE_WORDS]) for at in starts]
    return [found[at] for at in np.linspace(0, len(found) - 1, wanted).astype(int)]


def edited(text: str, percent: int, vocabulary: np.ndarray, random: np.random.Generator) -> str:
    """A copy in which each word is, with that probability, replaced, dropped or followed by another one."""
    out = []
    for word in text.split():
        other = str(random.choice(vocabulary))
        ways = [[other], [], [word, other]]
        out += ways[random.integers(3)] if random.random() < percent / 100 else [word]
    return " ".join(out)


def in_common(ids: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of documents with an id in common, as earlier * documents + later, ascending; and how many they share."""
    distinct = [np.unique(one) for one in ids]
    names, columns = np.unique(np.concatenate(distinct), return_inverse=True)
    ends = np.cumsum([0, *map(len, distinct)])
    held = csr_array((np.ones(len(columns), np.int32), columns, ends), shape=(len(ids), len(names)))
    shared = triu(held @ held.T, 1).tocoo()
    pairs = shared.row.astype(np.int64) * len(ids) + shared.col
    by_pair = np.argsort(pairs)
    return pairs[by_pair], shared.data[by_pair]


def compared(texts: list[str], keys: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of texts that share a run of words or a key; their exact Jaccard; whether they share a key."""
    runs = [np.unique(ngrams(word_hashes(words(text)), NGRAM)) for text in texts]
    pairs, shared = in_common(runs)
    candidates, _ = in_common(list(keys))
    every = np.union1d(pairs, candidates)
    sizes = np.array(list(map(len, runs)))
    one, other = np.divmod(pairs, len(texts))
    jaccard = np.zeros(len(every))
    jaccard[np.searchsorted(every, pairs)] = shared / (sizes[one] + sizes[other] - shared)
    return every, jaccard, np.isin(every, candidates)


def expected(jaccard: np.ndarray) -> np.ndarray:
    """The probability of a key in common."""
    return 1 - (1 - jaccard**ROWS) ** BANDS


def by_level(levels: np.ndarray, jaccard: np.ndarray, found: np.ndarray) -> None:
    print("| words edited | copies | mean Jaccard | found | expected |\n|---|---|---|---|---|")
    for percent in EDITED_PERCENT:
        at = levels == percent
        shown = f"{jaccard[at].mean():.2f} | {found[at].mean():.3f} | {expected(jaccard[at]).mean():.3f}"
        print(f"| {percent} % | {at.sum()} | {shown} |")


def by_jaccard(jaccard: np.ndarray, found: np.ndarray) -> None:
    print("\n| Jaccard of a pair | pairs | found | expected |\n|---|---|---|---|")
    for low, high in pairwise(BOUNDS):
        at = (jaccard >= low) & (jaccard < high)
        print(
            f"| {low} to {min(high, 1)} | {at.sum():,} | {found[at].mean():.4f} | {expected(jaccard[at]).mean():.4f} |"
        )


def by_rule(jaccard: np.ndarray, found: np.ndarray, estimate: np.ndarray) -> None:
    print(f"\n| pairs taken for copies | pairs | recall of ≥ {ALIKE} | precision: ≥ {ALIKE} | ≥ 0.5 | least Jaccard |")
    print("|---|---|---|---|---|---|")
    rules = {"a key in common": found} | {f"and an estimate ≥ {x}": found & (estimate >= x) for x in (0.7, 0.75, 0.8)}
    for name, taken in rules.items():
        true = jaccard[taken]
        shares = [taken[jaccard >= ALIKE].mean(), (true >= ALIKE).mean(), (true >= 0.5).mean()]
        print(f"| {name} | {taken.sum():,} | {' | '.join(f'{share:.3f}' for share in shares)} | {true.min():.2f} |")


def speed(texts: list[str], evaluation: list[str]) -> None:
    print("\n| on one core | MB/s |\n|---|---|")
    work = {"exact": exact, "signature": signature, "Contamination.found": Contamination(evaluation).found}
    for name, function in work.items():
        begun = time.process_time()
        for text in texts:
            function(text)
        taken_s = time.process_time() - begun
        print(f"| {name} | {sum(len(text.encode()) for text in texts) / taken_s / 1e6:.1f} |")


def main(data: Path) -> None:
    random = np.random.default_rng(0)
    squad = paragraphs(data)
    texts = squad + passages(data, PASSAGES - len(squad))
    vocabulary = np.unique(" ".join(texts).split())
    levels = np.repeat(EDITED_PERCENT, COPIES)
    originals = random.choice(PASSAGES, len(levels), replace=False)
    texts += [edited(texts[at], percent, vocabulary, random) for at, percent in zip(originals, levels, strict=True)]

    signatures = np.stack([signature(text) for text in texts])
    keys = bands(signatures)
    pairs, jaccard, found = compared(texts, keys)
    one, other = np.divmod(pairs, len(texts))
    stands_for = np.arange(len(texts))
    dropped, kept = duplicates(keys, stands_for).T
    stands_for[dropped] = kept
    copies = np.arange(PASSAGES, len(texts))
    exact_jaccard = dict(zip(pairs.tolist(), jaccard.tolist(), strict=True))
    planted = np.array([exact_jaccard.get(pair, 0) for pair in (originals * len(texts) + copies).tolist()])

    by_level(levels, planted, stands_for[originals] == stands_for[copies])
    by_jaccard(jaccard, found)
    by_rule(jaccard, found, (signatures[one] == signatures[other]).mean(1))
    speed(texts[len(squad) :: 4], squad)


if __name__ == "__main__":
    main(Path(*sys.argv[1:] or ["data"]))
