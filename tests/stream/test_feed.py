"""A worker's batches come in the order that was promised, from any position, whatever happens to the reading."""

import hashlib
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmray.corpus.tokenizer import train
from llmray.job.data import Source
from llmray.job.errors import DataError
from llmray.job.task import CausalLM
from llmray.store import place
from llmray.stream import groups
from llmray.stream.blocks import Write, encoding, identity
from llmray.stream.feed import Feed, Portion, portions_of
from llmray.stream.steps import arrow
from llmray.tasks import make
from llmray.tasks.base import Processor


def stored(store: str, files: Iterable[int], first: int = 0) -> Portion:
    """A store whose files have so many rows, `[row number, 7]` each, numbered through from `first`."""
    lines: list[dict[str, Any]] = []
    for rows in files:
        ids = [[number, 7] for number in range(first, first + rows)]
        lines += Write(store)(arrow({"input_ids": ids, "start": list(range(first, first + rows))})).to_pylist()
        first += rows
    schema = {"input_ids": "list<element: int32>", "start": "int64"}
    about: dict[str, Any] = {"task": {}, "processor": "", "job": {}, "result": {}}
    place.write_text(place.join(store, "manifest.json"), json.dumps({"shards": lines, "schema": schema} | about))
    return Portion((store,))


@pytest.fixture
def portion(tmp_path: Path) -> Portion:
    """150 rows in 75 row groups, which make two windows."""
    return stored(str(tmp_path / "store"), [2] * 75)


def batches(*portions: Portion, rows: int = 10, count: int | None = None, **how: Any) -> list[list[int]]:
    found = islice(Feed(portions, rows, **how), count)
    return [[int(ids[0]) for ids in columns["input_ids"]] for columns in found]


def flat(found: list[list[int]]) -> list[int]:
    return [number for batch in found for number in batch]


def test_columns_are_rows_as_they_were_written(portion):
    (columns,) = islice(Feed([portion], 3, shuffle=False), 1)
    assert [ids.tolist() for ids in columns["input_ids"]] == [[0, 7], [1, 7], [2, 7]]
    assert columns["start"] == [0, 1, 2]


def test_long_files_are_cut_into_row_groups_that_are_read_alone(tmp_path):
    portion = stored(str(tmp_path), [2500])
    (file,) = json.loads((tmp_path / "manifest.json").read_text())["shards"]
    assert [group["rows"] for group in file["groups"]] == [1024, 1024, 452]
    assert sum(group["bytes"] for group in file["groups"]) + file["footer_bytes"] + 4 == sum(
        path.stat().st_size for path in (tmp_path / "blocks").iterdir()
    )
    (last,) = groups.Groups(portion.stores).read(np.array([2]))
    assert last["start"].to_pylist() == list(range(2048, 2500))
    assert sorted(flat(batches(portion, count=250))) == list(range(2500))


def test_an_epoch_is_every_row_once_and_the_next_one_another_order(portion):
    found = flat(batches(portion, count=30, seed=3))
    assert sorted(found[:150]) == sorted(found[150:]) == list(range(150))
    assert found[:150] != found[150:]
    assert found != flat(batches(portion, count=30, seed=4))


def test_a_batch_runs_across_the_end_of_an_epoch(portion):
    assert batches(portion, rows=100, count=3, shuffle=False) == [
        list(range(100)),
        [*range(100, 150), *range(50)],
        list(range(50, 150)),
    ]


@pytest.mark.parametrize("world", [2, 3, 4])
def test_a_batch_is_the_same_whoever_shares_it(portion, world):
    alone = batches(portion, rows=12, count=30)
    workers = [batches(portion, rows=12 // world, count=30, rank=rank, world=world) for rank in range(world)]
    assert [flat(list(shares)) for shares in zip(*workers, strict=True)] == alone


def test_kills_lose_and_repeat_nothing(portion):
    """Ten attempts, each with another number of workers, from where the last one ended."""
    draw, position, found = random.Random(1), 0, []
    for _ in range(10):
        world, count = draw.choice([1, 2, 3, 4]), draw.randint(1, 5)
        workers = [
            batches(portion, rows=12 // world, count=count, rank=rank, world=world, start=position)
            for rank in range(world)
        ]
        found += [flat(list(shares)) for shares in zip(*workers, strict=True)]
        position += 12 * count
    assert found == batches(portion, rows=12, count=position // 12)


def test_up_to_a_stop_every_row_comes_once_and_again_the_next_time(portion):
    """150 rows, 16 for each of 3 workers: three batches of 48 rows and one of 6."""
    feeds = [Feed([portion], 16, rank=rank, world=3, stop=150) for rank in range(3)]
    for _ in range(2):
        sizes = [[len(columns["start"]) for columns in feed] for feed in feeds]
        assert sizes == [[16, 16, 16, 6], [16, 16, 16], [16, 16, 16]]
    assert sorted(start for feed in feeds for columns in feed for start in columns["start"]) == list(range(150))


def test_a_mixture_keeps_its_weights_and_each_source_its_epochs(tmp_path):
    small = Portion(stored(str(tmp_path / "small"), [2] * 20).stores, 1.0)
    large = Portion(stored(str(tmp_path / "large"), [2] * 75, first=1000).stores, 3.0)
    found = batches(small, large, rows=8, count=20)
    assert all(Counter(number >= 1000 for number in batch) == {True: 6, False: 2} for batch in found)
    assert sorted(number for number in flat(found) if number < 1000) == list(range(40))
    assert batches(small, large, rows=8, count=5, start=15 * 8) == found[15:]
    halves = [batches(small, large, rows=4, count=20, rank=rank, world=2) for rank in range(2)]
    assert [one + other for one, other in zip(*halves, strict=True)] == found


def test_the_files_of_any_batch_are_found_and_the_rows_in_them(tmp_path, monkeypatch):
    """Two epochs of a mixture of stores whose files have several row groups."""
    monkeypatch.setattr("llmray.stream.blocks.GROUP_ROWS", 4)
    one, other = (stored(str(tmp_path / name), [10, 3, 6], first) for name, first in (("a", 0), ("b", 100)))
    mixture = (Portion(one.stores, 1.0), Portion(other.stores, 2.0))
    for number, batch in enumerate(batches(*mixture, rows=7, count=10)):
        found = Feed(mixture, 7).written(7 * number, 7 * number + 7)
        read = [pq.read_table(path)["start"][row - 1].as_py() for path, rows in found.items() for row in rows]
        assert sorted(read) == sorted(batch)


def test_stores_of_one_part_are_read_as_one(tmp_path):
    stores = [stored(str(tmp_path / name), [3, 2], first).stores[0] for name, first in (("a", 0), ("b", 5))]
    assert batches(Portion(tuple(stores)), rows=10, count=1, shuffle=False) == [list(range(10))]
    feed = Feed([Portion(tuple(stores))], 5)
    assert feed.epoch_rows == 10
    assert sorted(start for columns in islice(feed, 2) for start in columns["start"]) == list(range(10))


def test_delays_change_nothing(portion, monkeypatch):
    def digest() -> str:
        workers = [batches(portion, rows=6, count=25, rank=rank, world=2, seed=9) for rank in range(2)]
        return hashlib.sha256(repr(workers).encode()).hexdigest()

    plain, read_spans, draw = digest(), place.read_spans, random.Random(0)

    def late(spans: set[groups.Span]) -> dict[groups.Span, bytes]:
        time.sleep(draw.random() / 50)
        return read_spans(spans)

    monkeypatch.setattr(place, "read_spans", late)
    assert [digest() for _ in range(2)] == [plain] * 2


def test_a_feed_that_is_left_leaves_no_thread(portion):
    feed = iter(Feed([portion], 10))
    next(feed)
    assert any(thread.name.startswith("feed") for thread in threading.enumerate())
    feed.close()
    assert not any(thread.name.startswith("feed") for thread in threading.enumerate())


def test_identity_is_of_content_and_order(portion, tmp_path):
    same = stored(str(tmp_path / "same"), [2] * 75)
    other = stored(str(tmp_path / "other"), [2] * 75, first=1)
    assert Feed([portion], 1).identity == Feed([same], 5, rank=1, world=2, start=7).identity
    distinct = [Feed([portion], 1), Feed([other], 1), Feed([portion], 1, seed=1), Feed([portion], 1, shuffle=False)]
    assert len({feed.identity for feed in distinct}) == 4


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: data[:20] + bytes([data[20] ^ 1]) + data[21:], "is not what was written"),
        (lambda data: data[:-20] + bytes([data[-20] ^ 1]) + data[-19:], "is not what was written"),
        (lambda data: data[:-1], "is not what was written"),
        (lambda data: b"", "is not what was written"),
        (lambda data: None, "cannot be read"),
    ],
    ids=["rows changed", "footer changed", "cut short", "emptied", "removed"],
)
def test_a_damaged_file_is_named(portion, damage: Callable[[bytes], bytes | None], words):
    file = sorted(Path(portion.stores[0], "blocks").iterdir())[40]
    left = damage(file.read_bytes())
    file.write_bytes(left) if left is not None else file.unlink()
    with pytest.raises(DataError, match=rf"{file.name}: {words}.*prepare .* again"):
        batches(portion, count=15)


def test_stores_that_cannot_be_fed_are_named(portion, tmp_path):
    empty = stored(str(tmp_path / "empty"), [])
    with pytest.raises(DataError, match="empty: there are no rows"):
        Feed([empty], 1)
    old = Path(portion.stores[0], "manifest.json")
    other = tmp_path / "other" / "manifest.json"
    place.write_text(str(other), old.read_text().replace('"start"', '"begin"'))
    with pytest.raises(DataError, match="other: its columns are"):
        Feed([Portion((*portion.stores, str(other.parent)))], 1)
    with pytest.raises(DataError, match="other: other columns than"):
        Feed([portion, Portion((str(other.parent),))], 1)
    old.write_text(old.read_text().replace('"groups"', '"parts"'))
    with pytest.raises(DataError, match="row groups are not in the manifest; prepare the store again"):
        Feed([portion], 1)


def test_sources_become_portions_by_their_weights(tmp_path):
    task = make(CausalLM(), Processor(train(["one two"], 300)))
    stores = [stored(str(tmp_path / name), [1]).stores[0] for name in "ab"]
    for store in stores:
        path = Path(store, "manifest.json")
        about = {"task": encoding(task), "processor": identity(task.processor)}
        path.write_text(json.dumps(json.loads(path.read_text()) | about))
    assert portions_of([Source(path=store) for store in stores], task) == (Portion(tuple(stores)),)
    weighed = [Source(path=store, weight=weight) for store, weight in zip(stores, (1, 3), strict=True)]
    assert portions_of(weighed, task) == (Portion((stores[0],), 1), Portion((stores[1],), 3))
    assert portions_of([Source(path="builtin:shapes?rows=5")], task) == ()
    with pytest.raises(DataError, match=r"builtin:shapes\?rows=5: is no prepared store although other sources are"):
        portions_of([weighed[0], Source(path="builtin:shapes?rows=5")], task)


def test_an_object_store_that_fails_for_a_while_is_asked_again(object_store):
    object_store.failures = 2
    remote = stored("s3://bucket/a", [2] * 3)
    assert sorted(flat(batches(remote, stop=6))) == list(range(6))
    assert len(object_store.asked) == 1 + 3 * 2  # the manifest; of each file a row group and the footer
    assert set(object_store.asked.values()) == {3}


def test_what_an_object_store_has_lost_is_named(object_store):
    remote = stored("s3://bucket/b", [2] * 3)
    name = place.listdir("s3://bucket/b/blocks")[1]
    place.remove(f"s3://bucket/b/blocks/{name}")
    with pytest.raises(DataError, match=rf"s3://bucket/b/blocks/{name}: cannot be read"):
        batches(remote, count=1)


def test_tables_without_lists_of_numbers_are_fed_too(tmp_path):
    """A column that is no list of numbers comes as Python's values."""
    portion = stored(str(tmp_path), [3])
    lines = Write(str(tmp_path))(pa.table({"image": [b"a", b"b", b"c"]})).to_pylist()
    found = json.loads((tmp_path / "manifest.json").read_text())
    found |= {"shards": lines, "schema": {"image": "binary"}}
    (tmp_path / "manifest.json").write_text(json.dumps(found))
    assert [c["image"] for c in Feed([portion], 2, stop=3, shuffle=False)] == [[b"a", b"b"], [b"c"]]
