"""A job file is judged whole before anything starts; every complaint names file, line, key, found, allowed, nearest."""

from pathlib import Path

import pytest

from llmray.job.errors import JobError
from llmray.job.load import dump, load, require


def complaint(tree_or_path: object, *overrides: str) -> str:
    with pytest.raises(JobError) as caught:
        load(tree_or_path, overrides)  # type: ignore[arg-type]
    return str(caught.value)


@pytest.fixture
def job_file(tmp_path: Path):
    def write(text: str) -> str:
        path = tmp_path / "job.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def test_unknown_key_names_line_and_nearest(job_file):
    path = job_file("task: qa\ntrain:\n  steps: 3\n  learning_rte: 0.1\n")
    text = complaint(path)
    assert text.startswith(f"{path}:4: train.learning_rte: unknown key")
    assert "found: 0.1" in text
    assert "did you mean 'learning_rate'?" in text
    assert "allowed: accumulate, activation_checkpointing, batch_size" in text


def test_unknown_section_names_the_sections(job_file):
    text = complaint(job_file("task: qa\n\ntrian: {steps: 3}\n"))
    assert ":3: trian: unknown key" in text
    assert "did you mean 'train'?" in text


def test_wrong_type_names_what_was_found(job_file):
    assert ":2: train.steps: input should be a valid integer" in complaint(job_file("train:\n  steps: many\n"))


def test_out_of_bounds(job_file):
    text = complaint(job_file("train:\n  learning_rate: -1\n"))
    assert ":2: train.learning_rate: input should be greater than 0" in text
    assert "found: -1" in text


def test_unknown_task_lists_tasks(job_file):
    text = complaint(job_file("task: translate\n"))
    assert ":1: task: unknown task" in text
    assert "did you mean 'translation'?" in text


def test_option_of_a_task_that_it_does_not_have(job_file):
    assert ":1: task.seq_len: unknown key" in complaint(job_file("task: {name: qa, seq_len: 9}\n"))


def test_key_within_a_list(job_file):
    text = complaint(job_file("data:\n  train:\n    - a.txt\n    - pth: b.txt\n"))
    assert ":4: data.train.1.pth: unknown key" in text
    assert "did you mean 'path'?" in text


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"train": {"steps": 1, "epochs": 1}}, "give steps or epochs, not both"),
        ({"train": {"batch_size": 6, "accumulate": 4}}, "batch_size (6) must be a multiple of accumulate (4)"),
        ({"train": {"batch_size": 9}, "scale": {"workers": 2}}, "must be a multiple of scale.workers"),
        ({"train": {"momentum": 0.9}}, "momentum is a key of optimizer: sgd and muon, not of adamw"),
        ({"train": {"decay_share": 0.1}}, "decay_share is a key of schedule: wsd, not of cosine"),
        ({"train": {"schedule": "wsd", "decay_every": 9}}, "decay_every is a key of schedule: step, not of wsd"),
        ({"train": {"schedule": "step"}}, "schedule: step needs decay_every"),
        ({"train": {"patience": 2}}, "patience counts validations; give eval_every"),
        ({"train": {"patience": 2, "eval_every": 5}}, "train.patience: waits for a better eval_loss; give data.eval"),
        ({"train": {"precision": "fp16"}}, "train.precision: fp16 is for GPUs; give scale.gpus_per_worker"),
        ({"train": {"precision": "tf32"}}, "train.precision: tf32 is for GPUs"),
        ({"train": {"optimizer": "muon"}, "scale": {"parallel": "fsdp"}}, "muon needs whole matrices"),
        (
            {"train": {"precision": "fp16"}, "scale": {"parallel": "fsdp", "gpus_per_worker": 1}},
            "fp16 skips steps, which scale.parallel: fsdp cannot",
        ),
        ({"train": {"lora": {}}, "scale": {"parallel": "fsdp"}}, "train.lora: leaves little to split"),
        ({"train": {"lora": {}}, "model": {"from": "new:gpt2-tiny"}}, "new:gpt2-tiny has random weights"),
        ({"scale": {"local_sgd": {"inner_steps": 5}}}, "local_sgd: are keys of parallel: local_sgd, not of ddp"),
        (
            {"train": {"checkpoint_every": 12}, "scale": {"parallel": "local_sgd", "local_sgd": {"inner_steps": 5}}},
            "train.checkpoint_every (12) must be a multiple of scale.local_sgd.inner_steps (5)",
        ),
        ({"scale": {"workers": 2, "min_workers": 2}}, "min_workers (2) must be below workers (2)"),
        ({"scale": {"workers": 2, "min_workers": 1, "parallel": "local_sgd"}}, "min_workers: what workers learn alone"),
        ({"scale": {"workers": 2, "min_workers": 1, "max_failures": 0}}, "which max_failures: 0 forbids; raise it"),
        (
            {"train": {"batch_size": 16, "accumulate": 2}, "scale": {"workers": 4, "min_workers": 2}},
            "train.batch_size (16): 3 workers, which scale.min_workers allows, cannot share it in 2 passes; use a"
            " multiple of 24",
        ),
        ({"task": "qa", "train": {"label_smoothing": 0.1}}, "train.label_smoothing: qa learns where an answer is"),
        ({"task": "qa", "train": {"chunked_loss": True}}, "train.chunked_loss: is for causal_lm and chat, not"),
        (
            {"task": {"name": "classification", "regression": True}, "train": {"label_smoothing": 0.1}},
            "train.label_smoothing: task.regression learns numbers",
        ),
        ({"train": {"final_model": "best"}}, "final_model: best needs keep_best: true"),
        ({"train": {"keep_best": True, "checkpoint_every": 6, "eval_every": 4}}, "(6) must be a multiple of eval_"),
        ({"train": {"keep_best": True, "checkpoint_every": 6}}, "must be a multiple of eval_every (None)"),
        ({"train": {"keep_best": True}}, "train.keep_best: compares eval_loss; give data.eval"),
        ({"task": {"name": "qa", "max_length": 64, "stride": 40}}, "stride (40) must be at most half"),
        ({"task": {"name": "qa", "null_threshold": 1}}, "null_threshold judges empty answers; set no_answer: true"),
        ({"task": {"name": "classification", "labels": ["a"]}}, "labels (a) must be two or more different classes"),
        ({"task": {"name": "classification", "labels": ["a", "b", "a"]}}, "labels (a, b, a) must be two or more"),
        ({"task": {"name": "classification", "labels": ["a", "b"], "regression": True}}, "labels are for classes"),
        ({"task": "chat", "data": {"train": "a", "clean": {}}}, "data.clean: cleans documents"),
        ({"tune": {"space": {"train.learning_rate": {"min": 2, "max": 1}}}}, "min (2.0) must be below max (1.0)"),
        ({"tune": {"space": {"train.learning_rate": {"min": 0, "max": 1, "log": True}}}}, "min (0.0) must be above 0"),
        ({"serve": {"endpoints": [{"model": "m", "task": "qa", "min_replicas": 3}]}}, "above max_replicas (2)"),
    ],
)
def test_impossible_combinations(tree, words):
    assert words in complaint(tree)


def test_what_is_wrong_with_the_whole_job_says_so_once():
    assert complaint({"train": {"keep_best": True}}).startswith("job: train.keep_best: compares eval_loss")


@pytest.mark.parametrize("task", ["causal_lm", "chat"])
def test_a_loss_in_chunks_is_for_all_that_writes_words_one_after_another(task):
    assert load({"task": task, "train": {"chunked_loss": True}}).train.chunked_loss is True


def test_required_key_inside_a_section(job_file):
    assert "model.from: this key is required" in complaint(job_file("model: {tokenizer: a}\n"))


def test_overrides_win_and_are_judged():
    job = load({"task": "qa", "train": {"steps": 5}}, ["train.steps=7", "task.stride=64", "train.learning_rate=5e-4"])
    assert job.train.steps == 7
    assert job.task.stride == 64
    assert job.train.learning_rate == 5e-4
    assert complaint({}, "train.stepz=7").startswith("on the command line, 'train.stepz=7': train.stepz: unknown key")


def test_override_inside_a_list_opens_the_shorthand():
    job = load({"data": {"train": ["a.txt", "b.txt"]}}, ["data.train.1.limit=3"])
    assert [source.limit for source in job.data.train] == [None, 3]


@pytest.mark.parametrize("text", ["steps", "=3", "data.train.4.limit=3", "train.steps=[1"])
def test_malformed_overrides(text):
    assert repr(text) in complaint({}, text)


def test_file_that_is_not_there_suggests_a_neighbour(job_file, tmp_path):
    job_file("task: qa\n")
    assert "did you mean" in complaint(str(tmp_path / "jobs.yaml"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train: [1,\n", "not valid YAML"),
        ("train: {}\ntrain: {}\n", ":2: not valid YAML: key 'train' is given twice"),
        ("- a\n", "a job file is a mapping of sections; found list"),
    ],
)
def test_files_that_are_no_job(job_file, text, words):
    assert words in complaint(job_file(text))


def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_bytes(b"task: \xff\xfe")
    assert "cannot be read as a job file" in complaint(str(path))


def test_yaml_reads_numbers_as_people_write_them():
    job = load({"tune": {"space": {"train.learning_rate": [1]}}}, ["tune.space.x=[1e-3, no, '1e-3']"])
    assert job.tune.space["x"] == (0.001, "no", "1e-3")


def test_dump_reads_back_equal(job_file):
    job = load(
        {
            "task": {"name": "translation", "beams": 2},
            "model": {"from": "new:marian-tiny"},
            "data": {"train": {"path": "a.en", "target": "a.de", "where": {"label": "true", "id": "1e-3"}}},
            "tune": {"space": {"train.batch_size": [8, 16], "train.learning_rate": {"min": 1e-4, "max": 1e-2}}},
            "evaluate": {"thresholds": {"bleu": {"min": 1}}},
        }
    )
    assert load(job_file(dump(job))) == job


def test_require_names_the_missing_key():
    with pytest.raises(JobError, match=r"model\.from: this verb needs it"):
        require(load({"task": "qa"}), "task", "model.from")


def test_a_judged_job_can_be_overridden_again():
    job = load({"task": "qa", "data": {"train": "a.jsonl"}, "tune": {"space": {"train.batch_size": [8]}}})
    assert load(job, ["train.steps=3"]).data == job.data
