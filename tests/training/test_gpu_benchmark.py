"""`benchmarks/gpu.py` runs where there is no GPU, and does not pass that off as figures."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu.py"


@pytest.mark.slow
@pytest.mark.skipif(" " in torch.__path__[0], reason="torch.compile needs a path without spaces")
def test_without_a_gpu_it_takes_its_way_through_a_tiny_model() -> None:
    words = [sys.executable, str(SCRIPT), "--cpu", "--pairs", "1", "--steps", "2", "--only", "gpt2-tiny"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "which show that the script runs and nothing else" in done.stdout
    rate = r"[1-9][\d,]*"
    line = rf"^\| gpt2-tiny, 4 × 64 \| {rate} \| not known \| {rate} \| not known \| \d+\.\d\d \|"
    assert re.search(line, done.stdout, re.MULTILINE), done.stdout
