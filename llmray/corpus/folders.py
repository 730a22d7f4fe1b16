"""Folders of captioned pictures → rows: Hugging Face's `imagefolder`, or `x.jpg` and its caption `x.txt`.

https://huggingface.co/docs/datasets/image_dataset#imagefolder

It does not read the pictures: a row says where its own lies.
"""

from collections.abc import Iterable, Iterator, Sequence

from llmray.corpus.files import text_of
from llmray.corpus.images import PICTURES, Beside
from llmray.corpus.record import Bad
from llmray.corpus.rows import Row
from llmray.store import place

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")


def is_picture(path: str) -> bool:
    return path.lower().endswith(PICTURES)


def is_metadata(path: str) -> bool:
    return path.rpartition("/")[2].lower() in METADATA


def with_pictures(path: str, rows: Iterable[Row | Bad]) -> Iterator[Row | Bad]:
    """Rows of a folder's metadata, with the pictures beside it that they name in `file_name`."""
    folder = path.rpartition("/")[0]
    for row in rows:
        if isinstance(row, Bad) or "file_name" not in row[1]:
            yield row
        else:
            yield row[0], {"image": Beside(folder, row[1]["file_name"]), **row[1]}


def captioned(path: str) -> Iterator[Row | Bad]:
    """The row of one picture: its caption is the text file of its name."""
    text = f"{path.rpartition('.')[0]}.txt"
    if not place.exists(text):
        yield Bad(path, "no caption", f"a picture without its caption; write one to {text}")
        return
    told = text_of(text)
    if isinstance(told, Bad):
        yield told
    elif not told.strip():
        yield Bad(text, "no caption", "an empty caption; write it, or remove it and its picture")
    else:
        folder, _, name = path.rpartition("/")
        yield path, {"image": Beside(folder, name), "file_name": name, "text": told.strip()}


def rows_among(found: Sequence[str]) -> list[str]:
    """Files of a folder that hold rows: a picture stands for itself and its caption; without any captions pictures are
    what other files' rows name."""
    stems = {_stem(path) for path in found if is_picture(path)}
    captions = {path for path in found if path.lower().endswith(".txt") and _stem(path) in stems}
    return [path for path in found if path not in captions and (captions or not is_picture(path))]


def _stem(path: str) -> str:
    return path.rpartition(".")[0]
