"""Measures how fast text becomes blocks of tokens, beside `datasets.map` and bare `tokenizers`, as a Markdown table.

    python benchmarks/tokenizing.py [bpe wordpiece unigram]

Reads `data/lm/english_novels` (see configs/real), cut into documents of 4,000 characters; trains each tokenizer on a
ninth of those.  Each contender is a process of its own, timed from where it has tokenizer and documents
in memory: llmray makes its encoder, tokenises and packs; the others only tokenise.  No process has a second thread.
CPU time is that of all of a contender's processes; memory is the largest resident size of one, documents included.
"""

import json
import lzma
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias, get_args

os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}

from datasets import Dataset
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from llmray.corpus.encode import Encode, encoder_of
from llmray.corpus.pack import pack
from llmray.corpus.tokenizer import Kind, train

NOVELS = Path("data/lm/english_novels/train.jsonl.xz")
CHARS, ROWS, SEQ_LEN, VOCABULARY = 4000, 500, 1024, 32_000
Tokenizer: TypeAlias = PreTrainedTokenizerBase


def chunks(documents: list[str]) -> Iterator[list[str]]:
    return (documents[at : at + ROWS] for at in range(0, len(documents), ROWS))


def llmray_alone(tokenizer: Tokenizer, documents: list[str]) -> int:
    encode, end = encoder_of(tokenizer), tokenizer.eos_token_id
    return sum(len(block) for chunk in chunks(documents) for block in pack(encode(chunk), SEQ_LEN, end))


def llmray_twice(tokenizer: Tokenizer, documents: list[str]) -> int:
    start = (encoder_of(tokenizer), tokenizer.eos_token_id)
    with multiprocessing.get_context("fork").Pool(2, Blocks.set, start) as pool:
        return sum(pool.imap(Blocks.of, chunks(documents)))


class Blocks:
    """What a process of the pool keeps between chunks; as in `prepare`, blocks stay where they are made."""

    encode: Encode
    end: int

    @classmethod
    def set(cls, encode: Encode, end: int) -> None:
        cls.encode, cls.end = staticmethod(encode), end

    @classmethod
    def of(cls, chunk: list[str]) -> int:
        return sum(map(len, pack(cls.encode(chunk), SEQ_LEN, cls.end)))


def datasets_map(tokenizer: Tokenizer, documents: list[str]) -> int:
    def encode(rows: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        return {"input_ids": tokenizer(rows["text"], add_special_tokens=False)["input_ids"]}

    made = Dataset.from_dict({"text": documents}).map(encode, batched=True, remove_columns=["text"], num_proc=2)
    return sum(len(chunk.flatten()) for chunk in made.data.column("input_ids").chunks)


def bare_tokenizers(tokenizer: Tokenizer, documents: list[str]) -> int:
    encode = tokenizer.backend_tokenizer.encode_batch
    return sum(len(one.ids) for chunk in chunks(documents) for one in encode(chunk, add_special_tokens=False))


CONTENDERS: dict[str, Callable[[Tokenizer, list[str]], int]] = {
    "llmray, 1 process": llmray_alone,
    "llmray, 2 processes": llmray_twice,
    "datasets.map, 2 processes": datasets_map,
    "tokenizers.encode_batch": bare_tokenizers,
}


def contend(name: str, folder: str) -> None:
    """Print tokens, seconds, seconds of CPU and peak bytes as JSON."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with Path(folder, "documents.jsonl").open() as file:
        documents = [json.loads(line) for line in file]
    began, cpu = time.perf_counter(), cpu_s()
    tokens = CONTENDERS[name](tokenizer, documents)
    seconds, cpu = time.perf_counter() - began, cpu_s() - cpu
    print(json.dumps([tokens, seconds, cpu, peak_bytes()]))


def cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def peak_bytes() -> int:
    """Of this process, whose own `ru_maxrss` starts with that of the one that started it, or of its largest child."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * max(int(status["VmHWM"].split()[0]), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)


def measure(kind: Kind, documents: list[str]) -> None:
    size = sum(len(document.encode()) for document in documents)
    with tempfile.TemporaryDirectory() as folder:
        train(documents[::9], VOCABULARY, kind).save_pretrained(folder)
        Path(folder, "documents.jsonl").write_text("\n".join(map(json.dumps, documents)))
        for name in CONTENDERS:
            command = [sys.executable, __file__, "--contend", name, folder]
            told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            tokens, seconds, cpu, peak = json.loads(told.splitlines()[-1])
            speeds = f"{size / seconds / 1e6:.1f} | {tokens / seconds / 1e6:.2f} | {size / cpu / 1e6:.1f}"
            print(f"| {kind} | {name} | {speeds} | {peak / 1e6:,.0f} |", flush=True)


def main(kinds: list[str]) -> None:
    with lzma.open(NOVELS, "rt") as file:
        novels = [json.loads(line)["text"] for line in file]
    documents = [text[at : at + CHARS] for text in novels for at in range(0, len(text), CHARS)]
    print("| tokenizer | by | MB/s | million tokens/s | MB per CPU second | peak, MB |\n|---|---|---|---|---|---|")
    for kind in get_args(Kind):
        if not kinds or kind in kinds:
            measure(kind, documents)


if __name__ == "__main__":
    contend(*sys.argv[2:]) if sys.argv[1:2] == ["--contend"] else main(sys.argv[1:])
