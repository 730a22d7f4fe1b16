"""Copies are found by their words; what is found depends on the texts alone, and what is kept on their order."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmray.corpus.dedup import BANDS, ROWS, bands, duplicates, exact, ngrams, signature, word_hashes, words

KEYS = st.lists(st.tuples(*[st.integers(0, 6)] * 3), max_size=12)
SENTENCE = "The quick brown fox jumps over the lazy dog, and then it sleeps under the old oak tree until the morning"


def keys_of(texts: list[str]) -> np.ndarray:
    return bands(np.stack([signature(text) for text in texts]))


def clusters(keys: np.ndarray) -> set[frozenset[int]]:
    """Connected documents, found slowly: every pair that has a key in common joins its two sets."""
    sets = [{at} for at in range(len(keys))]
    for one in range(len(keys)):
        for other in range(one):
            if (keys[one] == keys[other]).any() and sets[one] is not sets[other]:
                sets[one] |= sets[other]
                for at in sets[other]:
                    sets[at] = sets[one]
    return {frozenset(one) for one in sets}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Don't  stop,\n“Größe” — snake_case 3.5!", "don t stop größe snake case 3 5"),
        ("e\u0301te\u0301 co\u00adop\ufeff ﬁne", "été coop fine"),
        ("हिन्दी भाषा", "हिन्दी भाषा"),
        ("我有3月，カタ ABC。", "我 有 3 月 カ タ abc"),
        ("☕ ?!", "☕ ?!"),
        ("\ud800a", "a"),
        (" \n", ""),
    ],
)
def test_words(text, found):
    assert b" ".join(words(text)).decode() == found


def test_exact_sees_words_only():
    assert exact("Hello,  World!") == exact("hello world") != exact("hello worlds")
    assert exact("ab c") != exact("a bc")
    assert exact("☕") != exact("🙂")
    assert exact("") == exact(" \n\t")


def test_ngrams_are_as_many_and_as_different_as_the_runs():
    hashes = word_hashes(b"a b a b a b c".split())
    assert [len(ngrams(hashes, n)) for n in (1, 2, 7, 8, 20)] == [7, 6, 1, 0, 0]
    assert len(set(ngrams(hashes, 2).tolist())) == 3  # a b, b a, b c
    assert len(set(ngrams(hashes, 3).tolist())) == 3  # a b a, b a b, a b c
    assert ngrams(hashes, 3)[0] == ngrams(word_hashes([b"a", b"b", b"a"]), 3)[0]


def test_keys_are_the_same_in_every_process_and_on_every_machine():
    assert exact("a b") == 9242785727729118284
    assert bands(signature("a b c d e f")[None])[0, :2].tolist() == [6654822948530285692, 6888342434677057091]


@settings(deadline=None)
@given(st.text())
def test_the_same_text_is_always_found(text):
    keys = keys_of(["one other text", text, text, f"  {text}\n"])
    assert (keys[1] == keys[2:]).all()
    assert [2, 1] in duplicates(keys, np.arange(4)).tolist()


def test_signature_estimates_jaccard():
    common, one, other = (" ".join(f"{name}{at}" for at in range(1000)) for name in "abc")
    same = signature(f"{common} {one}") == signature(f"{common} {other}")
    assert same.shape == (BANDS * ROWS,)
    assert same.mean() == pytest.approx(996 / (996 + 2 * 1000), abs=0.13)  # three standard deviations of 112 draws


def test_a_long_text_in_chunks_has_the_least_of_all():
    long = " ".join(map(str, range(2000)))
    parts = [" ".join(map(str, range(at, at + 504))) for at in range(0, 2000, 500) if at + 504 <= 2000]
    tail = " ".join(map(str, range(1500, 2000)))
    assert (signature(long) == np.min([signature(part) for part in [*parts, tail]], 0)).all()


def test_near_copies_are_found_and_others_are_not():
    near = SENTENCE.replace("morning", "evening").upper()
    texts = [SENTENCE, "Quite another text about the price of coffee in the port of Trieste last year", near]
    assert duplicates(keys_of(texts), np.arange(3)).tolist() == [[2, 0]]


def test_chinese_is_compared_by_characters():
    text = "春天来了，花园里的花都开了，孩子们在草地上跑来跑去，老人们坐在树下聊天，天空很蓝，风也很轻。"
    texts = [
        text,
        text.replace("轻", "凉"),
        "今天的股票市场开盘以后一路下跌，投资者普遍感到担心，专家建议大家保持冷静。",
    ]
    assert duplicates(keys_of(texts), np.arange(3)).tolist() == [[1, 0]]


def test_texts_shorter_than_a_run_are_compared_whole():
    keys = keys_of(["one two", "One, two!", "two one", "one"])
    assert duplicates(keys, np.arange(4)).tolist() == [[1, 0]]


def test_duplicates_by_hand():
    keys = np.array([[1, 10], [2, 20], [1, 30], [4, 20], [5, 30], [6, 60]], np.uint64)  # 0-2-4 and 1-3
    assert duplicates(keys, np.arange(6)).tolist() == [[2, 0], [3, 1], [4, 0]]
    assert duplicates(keys, np.array([5, 4, 3, 2, 1, 0])).tolist() == [[0, 4], [1, 3], [2, 4]]
    assert duplicates(keys[:, :1], np.arange(6)).tolist() == [[2, 0]]
    assert duplicates(np.empty((0, 2), np.uint64), np.arange(0)).shape == (0, 2)


@settings(deadline=None)
@given(KEYS, st.randoms())
def test_of_each_cluster_the_earliest_stays_wherever_its_key_stands(rows, random):
    keys = np.array(rows, np.uint64).reshape(-1, 3)
    order = np.array(random.sample(range(100), len(keys)), int)
    expected = {(at, min(one, key=order.__getitem__)) for one in clusters(keys) for at in one}
    expected = {pair for pair in expected if pair[0] != pair[1]}
    assert set(map(tuple, duplicates(keys, order).tolist())) == expected
    moved = np.array(random.sample(range(len(keys)), len(keys)), int)
    assert set(map(tuple, moved[duplicates(keys[moved], order[moved])].tolist())) == expected


def test_a_hundred_thousand_keys_of_which_every_tenth_is_a_copy():
    count = 100_000
    keys = np.arange(count * BANDS, dtype=np.uint64).reshape(count, BANDS)
    copies = np.arange(1, count, 10)
    keys[copies, copies % BANDS] = keys[copies - 1, copies % BANDS]
    found = duplicates(keys, np.arange(count))
    assert (found == np.column_stack((copies, copies - 1))).all()


def test_one_cluster_of_a_hundred_thousand():
    count = 100_000
    found = duplicates(np.zeros((count, BANDS), np.uint64), np.arange(count))
    assert (found == np.column_stack((np.arange(1, count), np.zeros(count - 1, int)))).all()
