"""Several workers of a run, as processes that talk through gloo."""

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def workers(one_thread: None, tmp_path: Path) -> Callable[[Callable[[int], Any], int], list[Any]]:
    """`workers(act, world)`: what `act(rank)` gives in each of some processes."""

    def run(act: Callable[[int], Any], world: int) -> list[Any]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]

        def work(rank: int) -> None:
            try:
                where = f"tcp://127.0.0.1:{port}"
                dist.init_process_group("gloo", init_method=where, rank=rank, world_size=world)
                torch.save(act(rank), tmp_path / f"{rank}.pt")
                dist.barrier()
                os._exit(0)  # a fork of a process with threads cannot take them down in order
            finally:
                traceback.print_exc()
                os._exit(1)

        processes = [multiprocessing.get_context("fork").Process(target=work, args=(rank,)) for rank in range(world)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(120)
            assert process.exitcode == 0
        return [torch.load(tmp_path / f"{rank}.pt") for rank in range(world)]

    return run
