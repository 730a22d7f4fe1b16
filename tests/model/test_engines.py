"""Every engine answers as torch does, alone as in any batch; a form that is not as it was checked is not used."""

import logging
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from torch import get_num_threads, set_num_threads

from llmray.corpus import shapes
from llmray.corpus.record import Columns, Conversation, Record
from llmray.job.errors import JobError, ModelError, RequestError, ThresholdError
from llmray.job.results import ExportResult
from llmray.model import forms
from llmray.model.engines import onnx
from llmray.model.export import export
from llmray.model.generate import Stream
from llmray.model.predict import Predictor
from llmray.model.registry import promote, register
from llmray.store import place
from llmray.store.journal import Progress
from llmray.tasks.base import Answer, Request

Exported = Callable[..., ExportResult]
CONTEXT = "Ein 🔴 Kreis liegt links. " * 60 + "Das Ende: 东京 ist groß."
TALK = [{"role": "user", "content": "What is red?"}, {"role": "assistant", "content": "The circle."}]
SCENES = [shapes.draw(shapes.scene(0, "train", number)) for number in range(3)]
ASKED: dict[str, list[dict[str, Any]]] = {
    "qa": [
        {"question": "What is red?", "context": "The circle is red."},
        {"question": "Wo ist der Kreis?", "context": CONTEXT},
        {"question": "What colour?", "context": "A star. " * 7},
    ],
    "classification": [{"text": "A red circle"}, {"text": "東京 " * 300}, {"text": "blue"}],
    "masked_lm": [{"text": "A <mask> circle"}, {"text": "The small square is <mask>."}],
    "captioning": [{"image": scene} for scene in SCENES],
    "translation": [{"text": "A circle."}, {"text": "A large red star above a small blue square."}, {"text": "red"}],
    "causal_lm": [{"text": "A red"}, {"text": "There is a small blue circle to the left of"}, {"text": ""}],
    "chat": [{"messages": TALK[:1]}, {"messages": [*TALK, *TALK[:1]]}],
}
FORMS = [
    ("qa", "bert", "onnx"),
    ("qa", "roberta", "onnx"),
    ("qa", "modernbert", "onnx"),
    ("classification", "bert", "onnx"),
    ("classification", "gpt2", "onnx"),
    ("masked_lm", "modernbert", "onnx"),
    ("captioning", "vit-gpt2", "onnx"),
    ("translation", "marian", "ctranslate2"),
    ("translation", "t5", "ctranslate2"),
    ("causal_lm", "gpt2", "ctranslate2"),
    ("causal_lm", "llama", "ctranslate2"),
    ("chat", "llama", "ctranslate2"),
]
WRITERS = ("captioning", "translation", "causal_lm", "chat")


def rows(record: type[Record]) -> list[Columns]:
    """Two batches of evaluation records."""
    if record is Conversation:
        return [{"messages": [TALK, TALK]}]
    found = [asdict(one) for one in shapes.records(record, 0, "eval", 0, 4)]
    return [{name: [row[name] for row in part] for name in part[0]} for part in (found[:3], found[3:])]


@pytest.fixture(scope="module")
def exported(saved: Any, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """`exported(task, family, to, int8=False)` → a form of a random tiny model, made once; not to be changed."""

    @cache
    def one(name: str, family: str, to: Any, int8: bool = False) -> ExportResult:
        folder = tmp_path_factory.mktemp("exported") / "model"
        shutil.copytree(saved(name, family), folder)
        return export(str(folder), to, rows, 100.0, Progress.silent(), int8=int8)

    return one


@pytest.fixture
def form(exported: Exported, tmp_path: Path) -> Path:
    """A copy of a model with an ONNX form that was measured to be faster."""
    made = Path(exported("qa", "bert", "onnx").folder)
    shutil.copytree(made.parent, tmp_path / "model")
    copy = tmp_path / "model" / made.name
    faster = forms.read(copy).model_copy(update={"parent_rows_per_s": 1.0, "rows_per_s": 2.0})
    (copy / forms.NOTE).write_text(faster.model_dump_json())
    return copy


def requests(name: str) -> list[Request]:
    parameters = {"max_new_tokens": 12} if name in WRITERS else {}
    return [Request(inputs, parameters) for inputs in ASKED[name]]


@pytest.mark.parametrize(("name", "family", "to"), FORMS)
def test_a_float32_form_answers_as_torch_does_alone_or_in_a_batch(
    name: str, family: str, to: Any, exported: Exported, alike: Any
) -> None:
    made = exported(name, family, to)
    folder, asked = str(Path(made.folder).parent), requests(name)
    engine = Predictor.load(folder, device="cpu", engine=to)
    assert engine.engine == f"{to} float32"
    together = engine.predict([asked[0], Request(asked[0].inputs, {"no_such": 1}), *asked[1:]])
    assert isinstance(together.pop(1), RequestError)
    assert alike(together, Predictor.load(folder, device="cpu").predict(asked))
    assert alike(together, [engine.predict([each])[0] for each in asked])
    assert made.after == pytest.approx(made.before, rel=1e-4)


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """As a replica of as many CPUs has; rows are shared out among them."""
    before = get_num_threads()
    set_num_threads(request.param)
    yield request.param
    set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(("name", "family", "to"), [FORMS[place] for place in (0, 3, 6, 7, 9)])
def test_an_int8_form_is_smaller_and_answers_the_same_alone_or_in_a_batch(
    name: str, family: str, to: Any, exported: Exported
) -> None:
    made = exported(name, family, to, int8=True)
    engine = Predictor.load(str(Path(made.folder).parent), device="cpu", engine=to)
    assert engine.engine == f"{to} int8"
    assert sum(path.stat().st_size for path in Path(made.folder).iterdir()) < 0.7 * exported(name, family, to).bytes
    asked = requests(name) * 3
    alone = [engine.predict([each])[0] for each in asked]
    assert all(engine.predict(asked[:count]) == alone[:count] for count in range(2, 6))


def test_the_note_names_parent_metric_sizes_and_hashes(exported: Exported) -> None:
    made = exported("qa", "bert", "onnx")
    model = Path(made.folder).parent
    assert forms.read(Path(made.folder)) == made
    assert (made.parent, made.task, made.metric, made.rows) == (str(model), "qa", "exact_match", 4)
    assert made.parent_bytes == (model / "model.safetensors").stat().st_size
    assert set(made.files) == {path.name for path in Path(made.folder).iterdir()} - {forms.NOTE}
    assert made.rows_per_s > 0 < made.parent_rows_per_s


def test_a_stream_is_the_whole_answer_in_pieces(exported: Exported) -> None:
    folder = str(Path(exported("causal_lm", "llama", "ctranslate2").folder).parent)
    engine, torch = (Predictor.load(folder, device="cpu", engine=e) for e in ("ctranslate2", "torch"))
    [plain] = torch.predict([Request({"text": "A red"}, {"max_new_tokens": 30})])
    within = plain["generated_text"][6:8]
    for parameters in ({}, {"stop": [within]}, {"return_full_text": True}, {"max_new_tokens": 1}):
        request = Request({"text": "A red"}, {"max_new_tokens": 30} | parameters)
        told, rest = heard(engine.stream(request))
        assert [{"generated_text": told} | rest] == engine.predict([request]) == torch.predict([request])
    assert rest["finish_reason"] == "length"


@pytest.mark.parametrize("engine", ["torch", "ctranslate2"])
def test_a_longer_neighbour_does_not_shorten_a_text(engine: Any, exported: Exported) -> None:
    folder = str(Path(exported("causal_lm", "gpt2", "ctranslate2").folder).parent)
    writer = Predictor.load(folder, device="cpu", engine=engine)
    limit = writer.model.config.n_positions
    asked = [Request({"text": text}, {"max_new_tokens": 40}) for text in ("A red", " red" * (limit - 20))]
    together = writer.predict(asked)
    assert together == [writer.predict([each])[0] for each in asked]
    assert [one["tokens"] for one in together if isinstance(one, dict)] == [40, 20]


def heard(stream: Stream) -> tuple[str, Answer]:
    pieces = []
    while True:
        try:
            pieces.append(next(stream))
        except StopIteration as end:
            return "".join(pieces), end.value


def test_what_an_engine_cannot_do_is_refused_by_name(exported: Exported) -> None:
    made = exported("causal_lm", "gpt2", "ctranslate2")
    engine = Predictor.load(str(Path(made.folder).parent), device="cpu", engine="ctranslate2")
    drawn: dict[str, Any] = {"do_sample": True, "max_new_tokens": 3, "top_p": 0.9, "top_k": 5}
    seeded, drawn_by_beams, free = engine.predict(
        [Request({"text": "A"}, drawn | more) for more in ({"seed": 1}, {"num_beams": 2}, {})]
    )
    assert "parameters.seed: CTranslate2 cannot repeat a draw" in str(seeded)
    assert "parameters.num_beams" in str(drawn_by_beams)
    assert isinstance(free, dict)
    with pytest.raises(RequestError, match=r"parameters\.seed"):
        engine.stream(Request({"text": "A"}, drawn | {"seed": 1}))


def test_penalties_and_beams_are_those_of_torch(exported: Exported) -> None:
    folder = str(Path(exported("causal_lm", "gpt2", "ctranslate2").folder).parent)
    engine, torch = (Predictor.load(folder, device="cpu", engine=e) for e in ("ctranslate2", "torch"))
    for parameters in ({"repetition_penalty": 1.5}, {"num_beams": 3}):
        asked = [Request(inputs, parameters | {"max_new_tokens": 10}) for inputs in ASKED["causal_lm"]]
        assert engine.predict(asked) == torch.predict(asked)


def test_auto_takes_the_fastest_form_and_only_on_a_cpu(form: Path) -> None:
    slower = shutil.copytree(form, form.parent / "onnx-int8")
    note = forms.read(slower).model_copy(update={"precision": "int8", "rows_per_s": 1.5})
    (slower / forms.NOTE).write_text(note.model_dump_json())
    assert Predictor.load(str(form.parent), engine="auto", device="cpu").engine == "onnx float32"
    assert Predictor.load(str(form.parent), engine="onnx", device="cpu").engine == "onnx float32"
    for path in (form, slower):
        (path / forms.NOTE).write_text(forms.read(path).model_copy(update={"rows_per_s": 0.9}).model_dump_json())
    assert Predictor.load(str(form.parent), engine="auto", device="cpu").engine == "torch"
    assert Predictor.load(str(form.parent), engine="onnx", device="cpu").engine == "onnx float32"


def _cut_short(form: Path) -> None:
    graph = form / onnx.FILE
    graph.write_bytes(graph.read_bytes()[:-1])


def _other_weights(form: Path) -> None:
    weights = form.parent / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")


def _other_task(form: Path) -> None:
    (form / forms.NOTE).write_text(forms.read(form).model_copy(update={"task": "translation"}).model_dump_json())


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            _cut_short,
            r"model\.onnx: is missing or not as it was written; make it again: llmray export .* --to onnx",
        ),
        (lambda form: (form / onnx.FILE).unlink(), r"model\.onnx: is missing"),
        (lambda form: (form / forms.NOTE).write_text("{"), r"export\.json: cannot be read"),
        (_other_weights, "was made of other weights"),
        (_other_task, "was checked for translation, not for qa"),
    ],
)
def test_a_form_that_is_not_as_it_was_checked_is_refused_and_auto_falls_back(
    spoil: Callable[[Path], object], words: str, form: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spoil(form)
    with pytest.raises(ModelError, match=words):
        Predictor.load(str(form.parent), engine="onnx", device="cpu")
    with caplog.at_level(logging.WARNING):
        predictor = Predictor.load(str(form.parent), engine="auto", device="cpu")
    assert predictor.engine == "torch"
    assert "another engine answers meanwhile" in caplog.text
    assert isinstance(predictor.predict(requests("qa"))[0], dict)


def test_int8_waits_for_a_processor_that_can(form: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (form / forms.NOTE).write_text(forms.read(form).model_copy(update={"needs_vnni": True}).model_dump_json())
    monkeypatch.setattr(onnx, "has_vnni", lambda: False)
    with pytest.raises(ModelError, match="this processor would overflow in its int8"):
        Predictor.load(str(form.parent), engine="onnx", device="cpu")


def test_a_missing_form_or_package_says_what_to_do(saved: Any, form: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"has no such form; make one: llmray export .* --to ctranslate2"):
        Predictor.load(saved("causal_lm", "gpt2"), engine="ctranslate2", device="cpu")
    monkeypatch.setattr("llmray.model.engines.choice.importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"needs onnxruntime, onnx, onnxscript: pip install 'llmray\[engines\]'"):
        Predictor.load(str(form.parent), engine="onnx", device="cpu")


def test_a_form_that_loses_too_much_is_not_kept(saved: Any, tmp_path: Path) -> None:
    shutil.copytree(saved("causal_lm", "gpt2"), tmp_path / "model")
    before = sorted(path.name for path in (tmp_path / "model").iterdir())
    must_be_better = -50.0  # int8 may be so by chance, but not by so much
    with pytest.raises(ThresholdError, match=r"perplexity is .* allows to lose -50 %\. Nothing was kept") as found:
        export(str(tmp_path / "model"), "ctranslate2", rows, must_be_better, Progress.silent(), int8=True)
    assert found.value.exit_code == 3
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == before


@pytest.mark.parametrize(
    ("name", "family", "to", "words"),
    [
        ("translation", "marian", "onnx", "onnx does qa, classification, masked_lm, captioning; this model does"),
        ("qa", "bert", "ctranslate2", "ctranslate2 does causal_lm, chat, translation; this model does qa"),
    ],
)
def test_what_cannot_be_converted_is_said_before(name: str, family: str, to: Any, words: str, saved: Any) -> None:
    with pytest.raises(JobError, match=words):
        export(saved(name, family), to, rows, 1.0, Progress.silent())
    with pytest.raises(JobError, match=r"no/hub is no folder.*hf download"):
        export("no/hub", to, rows, 1.0, Progress.silent())


def test_a_form_goes_with_its_model_into_the_registry_and_a_version_can_have_its_own(
    form: Path, tmp_path: Path
) -> None:
    root = str(tmp_path / "registry")
    register(root, "asker", str(form.parent), {})
    promote(root, "asker", 1, "champion")
    loaded = Predictor.load("registry:asker@champion", device="cpu", registry_root=root, engine="auto")
    assert (loaded.version, loaded.engine) == ("1", "onnx float32")
    made = export("registry:asker", "onnx", rows, 100.0, Progress.silent(), int8=True, registry_root=root)
    assert made.folder == f"{root}/asker/v1/onnx-int8"


def test_a_form_of_a_model_in_an_object_store_is_kept_there(saved: Any, object_store: Any) -> None:
    place.upload(saved("qa", "bert"), "s3://bucket/model")
    made = export("s3://bucket/model", "onnx", rows, 100.0, Progress.silent())
    assert made.folder == "s3://bucket/model/onnx"
    assert set(place.listdir(made.folder)) == {*made.files, forms.NOTE}
