"""References become models: new ones from the seed, saved ones quietly, with a new head where one is needed."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from llmray.corpus.tokenizer import train
from llmray.job.errors import JobError, ModelError, StoreError
from llmray.job.schema import Model
from llmray.model.load import build, processor, resolve, save
from llmray.model.registry import promote, register
from llmray.tasks import make
from llmray.tasks.base import Processor


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


@pytest.mark.parametrize(
    ("name", "preset"),
    [
        ("causal_lm", "gpt2-tiny"), ("causal_lm", "llama-tiny"), ("qa", "bert-tiny"), ("qa", "roberta-tiny"),
        ("masked_lm", "modernbert-tiny"), ("translation", "marian-tiny"), ("translation", "t5-tiny"),
        ("captioning", "vit-gpt2-tiny"),
    ],
)  # fmt: skip
def test_new_weights_follow_from_torchs_seed_and_no_dropout(name: str, preset: str, fresh: Any) -> None:
    _, first = fresh(name, preset)
    assert same(first, fresh(name, preset)[1])
    assert not same(first, fresh(name, preset, seed=1)[1])
    assert {p.dtype for p in first.parameters()} == {torch.float32}
    assert {m.p for m in first.modules() if isinstance(m, torch.nn.Dropout)} <= {0.0}


def test_a_question_answerer_begins_with_the_encoders_weights(
    saved: Any, options: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    for family in ("bert", "roberta", "modernbert"):
        section = Model.model_validate({"from": saved("masked_lm", family)})
        task = make(options("qa"), processor(section))
        encoder = transformers.AutoModelForMaskedLM.from_pretrained(section.from_)
        capfd.readouterr()
        built = []
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            built.append(build(section, task))
        assert "".join(capfd.readouterr()) == ""
        first, again, other = built
        assert same(first.base_model, encoder.base_model)
        assert same(first, again)
        assert same(first.base_model, other.base_model)
        assert not same(first, other)


def test_half_precision_weights_are_trained_in_full(fresh: Any, tmp_path: Path) -> None:
    task, model = fresh("qa", "bert-tiny")
    save(model.to(torch.bfloat16), task, str(tmp_path / "half"))
    section = Model.model_validate({"from": str(tmp_path / "half")})
    assert build(section, task).dtype == torch.float32
    assert build(section, task, dtype="auto").dtype == torch.bfloat16


def test_a_registry_reference_is_its_folder(saved: Any, tmp_path: Path) -> None:
    root = str(tmp_path / "registry")
    register(root, "reader", saved("qa", "bert"), {})
    promote(root, "reader", 1, "champion")
    for reference in ("registry:reader@champion", "registry:reader", "registry:reader@1", "registry:reader@v1"):
        assert resolve(reference, root) == f"{root}/reader/v1"
    with pytest.raises(StoreError, match=r"registry:reader@best: no such version or alias; there are: v1 \(champion\)"):
        resolve("registry:reader@best", root)
    with pytest.raises(StoreError, match="no model 'rider'; known: reader"):
        resolve("registry:rider", root)


def test_an_object_stores_folder_is_read(fresh: Any) -> None:
    task, model = fresh("qa", "bert-tiny")
    save(model, task, "memory://models/read/model")
    section = Model.model_validate({"from": "memory://models/read/model"})
    assert same(build(section, make(task.options, processor(section))), model)


def test_a_file_uri_and_the_home_folder_are_paths(saved: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved("qa", "bert")
    assert resolve(f"file://{folder}") == folder
    monkeypatch.setenv("HOME", str(Path(folder).parent))
    assert resolve(f"~/{Path(folder).name}") == folder


def test_hub_ids_and_presets_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for reference in ("gpt2", "google/vit-base-patch16-224", "new:gpt2-tiny"):
        assert resolve(reference) == reference


def test_a_folder_that_is_not_there_names_its_neighbour(saved: Any) -> None:
    folder = saved("qa", "bert")
    with pytest.raises(ModelError, match=f"no such model folder; did you mean {folder}"):
        resolve(folder.replace("qa-bert", "qa-bret"))


@pytest.mark.parametrize("reference", ["", "  "])
def test_an_empty_reference_is_named(reference: str) -> None:
    with pytest.raises(ModelError, match=r"model\.from: is empty"):
        resolve(reference)


def test_a_file_is_no_model() -> None:
    with pytest.raises(ModelError, match="is a file; a model is a folder"):
        resolve(__file__)


def test_a_new_model_needs_a_tokenizer() -> None:
    with pytest.raises(JobError, match=r"model\.tokenizer: new:bert-tiny brings no tokenizer"):
        processor(Model.model_validate({"from": "new:bert-tiny"}))


def test_a_larger_tokenizer_is_refused(saved: Any, options: Any) -> None:
    large = Processor(train(["a red circle", "a blue square"] * 9, 420))
    large.tokenizer.add_tokens([f"word{i}" for i in range(400)])
    with pytest.raises(JobError, match=r"has \d+ tokens, but the model .* knows \d+"):
        build(Model.model_validate({"from": saved("qa", "bert")}), make(options("qa"), large))


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_task_longer_than_the_positions_is_refused(family: str, saved: Any, options: Any) -> None:
    section = Model.model_validate({"from": saved("qa", family)})
    build(section, make(options("qa", max_length=512), processor(section)))
    with pytest.raises(JobError, match=r"task\.max_length: 513 tokens, but the model .* has 512 positions"):
        build(section, make(options("qa", max_length=513), processor(section)))


@pytest.mark.parametrize(
    ("made", "family", "asked", "words"),
    [
        ("causal_lm", "gpt2", "translation", "holds GPT2LMHeadModel; a gpt2 model cannot do translation"),
        ("causal_lm", "gpt2", "masked_lm", "a gpt2 model cannot do masked_lm"),
        ("translation", "marian", "captioning", "a marian model cannot do captioning"),
        ("masked_lm", "bert", "causal_lm", "holds BertForMaskedLM; it reads to both sides"),
        ("masked_lm", "modernbert", "causal_lm", "a modernbert model cannot do causal_lm"),
    ],
)
def test_an_architecture_that_cannot_do_the_task_is_refused(
    made: str, family: str, asked: str, words: str, saved: Any, options: Any
) -> None:
    section = Model.model_validate({"from": saved(made, family)})
    with pytest.raises(ModelError, match=words):
        build(section, make(options(asked), processor(section)))


def test_without_network_a_hub_id_says_so_at_once(
    saved: Any, options: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.chdir(Path(saved("qa", "bert")).parent)
    with pytest.raises(ModelError, match=r"hub id .* cannot be reached from here .*; did you mean qa-bert\?"):
        processor(Model.model_validate({"from": "qa-bart"}))
    task = make(options("qa"), processor(Model.model_validate({"from": saved("qa", "bert")})))
    with pytest.raises(ModelError, match="nobody/nothing: no such folder, and as a hub id it cannot be fetched"):
        build(Model.model_validate({"from": "nobody/nothing"}), task)
