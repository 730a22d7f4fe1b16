"""The digits that name a model are those that anyone can make with two shell commands."""

import subprocess
from pathlib import Path

from serve.lineage import lineage


def shell(folder: Path) -> str:
    command = "LC_ALL=C sha256sum *.safetensors $(ls lineage.json 2>/dev/null) | sha256sum | cut -c1-16"
    return subprocess.run(command, shell=True, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def test_weights_job_and_corpus_each_change_the_lineage_as_the_shell_tells_it(tmp_path: Path) -> None:
    (tmp_path / "model-00002-of-2.safetensors").write_bytes(b"two")
    (tmp_path / "model-00001-of-2.safetensors").write_bytes(b"one")
    seen = [lineage(str(tmp_path), "0")]
    assert seen == [shell(tmp_path)]
    for name, text in [("lineage.json", "{}"), ("lineage.json", '{"step": 1}'), ("model-00001-of-2.safetensors", "1")]:
        (tmp_path / name).write_text(text)
        assert lineage(str(tmp_path), "0") == shell(tmp_path)
        seen.append(shell(tmp_path))
    assert len(set(seen)) == 4


def test_a_hub_model_is_named_by_its_commit() -> None:
    assert lineage("owner/model", "abc") != lineage("owner/model", "abd")
