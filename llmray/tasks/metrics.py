"""How answers are scored, in the field's own definitions.  It does not know which task asks."""

import math
import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence

ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalised(text: str) -> str:
    """SQuAD's official normalisation: lower case, no punctuation, no articles, single spaces."""
    bare = "".join(ch for ch in text.lower() if ch not in set(string.punctuation))
    return " ".join(ARTICLES.sub(" ", bare).split())


def exact_match(answer: str, references: Sequence[str]) -> float:
    """1.0 when the answer equals any reference after normalisation (https://arxiv.org/abs/1606.05250).

    Without references, an empty answer is right (https://arxiv.org/abs/1806.03822).
    """
    if not references:
        return float(not normalised(answer))
    return float(any(normalised(answer) == normalised(reference) for reference in references))


def token_f1(answer: str, references: Sequence[str]) -> float:
    """Best harmonic mean of token precision and recall over the references (https://arxiv.org/abs/1606.05250).

    Without references, an empty answer is right (https://arxiv.org/abs/1806.03822).
    """
    if not references:
        return float(not normalised(answer))
    return max((_f1(normalised(answer).split(), normalised(r).split()) for r in references), default=0.0)


def _f1(answer: list[str], reference: list[str]) -> float:
    common = sum((Counter(answer) & Counter(reference)).values())
    if not common:
        return 0.0
    precision, recall = common / len(answer), common / len(reference)
    return 2 * precision * recall / (precision + recall)


def accuracy(found: Sequence[str], labels: Sequence[str]) -> float:
    """Share of classes that are right."""
    return sum(a == b for a, b in zip(found, labels, strict=True)) / max(len(labels), 1)


def macro_f1(found: Sequence[str], labels: Sequence[str]) -> float:
    """Mean F1 of all classes that occur or were told, each weighing the same, as scikit-learn's `f1_score` has it."""
    classes, told, there = {*found, *labels}, Counter(found), Counter(labels)
    right = Counter(a for a, b in zip(found, labels, strict=True) if a == b)
    return sum(2 * right[c] / (told[c] + there[c]) for c in classes) / max(len(classes), 1)


def correlations(found: Sequence[float], labels: Sequence[float]) -> dict[str, float]:
    """Pearson's and Spearman's, from -1 to 1; 0 where one side is constant, which tells nothing of the other."""
    if len({*found}) < 2 or len({*labels}) < 2:
        return {"pearson": 0.0, "spearman": 0.0}
    from scipy import stats  # 0.2 s, for which no training waits

    return {
        "pearson": float(stats.pearsonr(found, labels).statistic),
        "spearman": float(stats.spearmanr(found, labels).statistic),
    }


def translation_scores(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Corpus BLEU and chrF as sacreBLEU computes them; `references[i]` are the right answers of `hypotheses[i]`."""
    import sacrebleu  # 0.1 s, for which no training waits

    streams = [list(stream) for stream in _streams(references)]
    return {
        "bleu": sacrebleu.corpus_bleu(list(hypotheses), streams).score,
        "chrf": sacrebleu.corpus_chrf(list(hypotheses), streams).score,
    }


def _streams(references: Sequence[Sequence[str]]) -> Iterable[list[str]]:
    most = max((len(r) for r in references), default=0)
    return ([r[min(i, len(r) - 1)] for r in references] for i in range(most))


def perplexity(nll: float, tokens: int) -> float:
    """exp of the mean negative log-likelihood, `nll` being its sum in nats; infinite without tokens."""
    return math.exp(min(nll / tokens, 700.0)) if tokens else math.inf


def unigram_nll(train: Iterable[int], held_out: Iterable[int], vocab_size: int) -> tuple[float, int]:
    """Negative log-likelihood (nats) and count of held-out tokens under add-one-smoothed training frequencies."""
    counts = Counter(train)
    total = sum(counts.values()) + vocab_size
    ids = list(held_out)
    return -sum(math.log((counts[i] + 1) / total) for i in ids), len(ids)
