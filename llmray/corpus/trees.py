"""A `.json` file → rows: a list of them, SQuAD's form or COCO's.

It does not know which is wanted.  The file is one value and is read whole.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from llmray.corpus.damage import shown
from llmray.corpus.files import text_of
from llmray.corpus.record import Bad
from llmray.corpus.rows import Row


def rows(path: str) -> Iterator[Row | Bad]:
    """Rows of a list of objects, questions of SQuAD, or captioned pictures of COCO."""
    text = text_of(path)
    if isinstance(text, Bad):
        yield text
        return
    if not text.strip():
        return
    try:
        tree = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        yield Bad(path, "not JSON", f"not JSON: {error}; rows of JSON are `.jsonl`")
        return
    yield from _form(path, tree)


def _form(path: str, tree: Any) -> Iterator[Row | Bad]:
    if isinstance(tree, list):
        yield from (as_row(f"{path}, item {number}", item) for number, item in enumerate(tree, 1))
    elif _has_lists(tree, "images", "annotations"):
        yield from _coco(path, tree)
    elif _has_lists(tree, "data"):
        yield from _squad(path, tree)
    else:
        forms = "SQuAD's form (data → paragraphs → qas) nor in COCO's (images, annotations), nor a list of objects"
        yield Bad(path, "wrong form", f"neither in {forms}; rows of JSON are `.jsonl`")


def as_row(where: str, value: Any) -> Row | Bad:
    if isinstance(value, dict):
        return where, value
    return Bad(where, "wrong row", f"a row is a JSON object; found {type(value).__name__}", shown(value))


def _has_lists(tree: Any, *names: str) -> bool:
    return isinstance(tree, dict) and all(isinstance(tree.get(name), list) for name in names)


def _squad(path: str, tree: dict[str, Any]) -> Iterator[Row | Bad]:
    """https://rajpurkar.github.io/SQuAD-explorer"""
    question = 0
    for number, article in enumerate(tree["data"], 1):
        try:
            rows = [
                {"title": article.get("title", ""), "context": paragraph["context"], **asked}
                for paragraph in article["paragraphs"]
                for asked in paragraph["qas"]
            ]
        except (AttributeError, KeyError, TypeError) as error:
            yield Bad(f"{path}, article {number}", "wrong form", f"not in SQuAD's form (paragraphs → qas): {error}")
            continue
        for row in rows:
            question += 1
            yield f"{path}, question {question}", row


def _coco(path: str, tree: dict[str, Any]) -> Iterator[Row | Bad]:
    """https://cocodataset.org/#format-data; pictures without captions are no rows."""
    captions = defaultdict(list)
    for number, annotation in enumerate(tree["annotations"], 1):
        try:
            captions[annotation["image_id"]].append(annotation["caption"])
        except (KeyError, TypeError) as error:
            yield Bad(
                f"{path}, annotation {number}",
                "wrong form",
                f"needs `image_id` and `caption`: {error}",
                shown(annotation),
            )
    for number, image in enumerate(tree["images"], 1):
        where = f"{path}, image {number}"
        try:
            told = captions.pop(image["id"], None)
            row = image | {"image": image["file_name"], "captions": told}
        except (KeyError, TypeError) as error:
            yield Bad(where, "wrong form", f"needs `id` and `file_name`: {error}", shown(image))
        else:
            if told:
                yield where, row
    yield from (Bad(f"{path}, image_id {name}", "no picture", "is captioned but not in `images`") for name in captions)
