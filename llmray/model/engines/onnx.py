"""A model as an ONNX graph, written by torch's exporter and run by ONNX Runtime on a CPU.

It does not know what the logits mean.  In int8 the weights are stored rounded, and what is multiplied with them is
rounded by the largest number of a pass: each row is a pass of its own, so that no answer depends on its company.
"""

import logging
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from transformers.modeling_outputs import BaseModelOutput

from llmray.job.schema import Model
from llmray.model import load
from llmray.model.load import Quiet
from llmray.tasks.base import Task

FILE = "model.onnx"
EXAMPLE = {"rows": 2, "length": 16}
"""Shape of what the exporter traces; both dimensions stay free."""
MULTIPLIED = ["MatMul", "Gemm"]
"""What is done in int8; convolutions would be slower in it."""
SLOWER = ["SkipLayerNormFusion"]
"""What ONNX Runtime fuses to its loss: on a CPU the fused operator takes three times as long as its two parts."""


def has_vnni() -> bool:
    """Whether this processor adds products of int8 without overflow, at full speed."""
    found = torch.cpu.get_capabilities()
    return found["architecture"] != "x86_64" or bool(found.get("avx512_vnni") or found.get("avx_vnni"))


def convert(model: Any, task: Task, folder: Path, *, int8: bool) -> None:
    """Write `model.onnx`: of pictures only the encoder, of texts all."""
    target = folder / FILE
    graph = folder / "float32.onnx" if int8 else target
    _write(model, task, graph)
    if int8:
        with _silent():
            quantize_dynamic(
                graph, target, op_types_to_quantize=MULTIPLIED, per_channel=True, weight_type=QuantType.QInt8,
                reduce_range=not has_vnni(), use_external_data_format=_is_large(graph),
            )  # fmt: skip
        for path in folder.glob("float32.onnx*"):
            path.unlink()


def _write(model: Any, task: Task, path: Path) -> None:
    part, given, outputs = _traced(model, task)
    part.set_attn_implementation("eager")  # "sdpa" also looks for rows that are masked whole: 15 % slower
    free = {name: dict.fromkeys(range(1 if name == "pixel_values" else 2), torch.export.Dim.DYNAMIC) for name in given}
    with Quiet(), _silent(), warnings.catch_warnings(action="ignore"):
        torch.onnx.export(
            part, (), path, kwargs=given, dynamic_shapes=free, input_names=list(given), output_names=outputs,
            dynamo=True, verbose=False,
        )  # fmt: skip


def _traced(model: Any, task: Task) -> tuple[Any, dict[str, torch.Tensor], list[str]]:
    """What is exported, an example of what it is given, and the names of what it gives."""
    rows = EXAMPLE["rows"]
    if task.name == "captioning":
        size = task.processor.image_processor.size  # type: ignore[union-attr]
        pixels = torch.zeros(rows, 3, int(size["height"]), int(size["width"]))
        return model.encoder, {"pixel_values": pixels}, ["last_hidden_state"]
    model.config.use_cache = False
    ids = torch.ones(rows, EXAMPLE["length"], dtype=torch.long)
    mask = ids.clone()
    mask[1, EXAMPLE["length"] // 2 :] = 0
    outputs = ["start_logits", "end_logits"] if task.name == "qa" else ["logits"]
    return model, {"input_ids": ids, "attention_mask": mask}, outputs


class _silent:  # noqa: N801 — reads as the statement that it is
    """Keeps to itself what an exporter lacks and does not need."""

    def __enter__(self) -> None:
        logging.disable(logging.WARNING)

    def __exit__(self, *_: object) -> None:
        logging.disable(logging.NOTSET)


def _is_large(graph: Path) -> bool:
    return sum(path.stat().st_size for path in graph.parent.glob(f"{graph.name}*")) > 1 << 31


def opened(section: Model, form: Path, task: Task, *, int8: bool) -> Any:
    """The form beside a model's weights.  Raises `ModelError` where the model's folder itself is wrong."""
    graph = Graph(form / FILE, alone=int8)
    if task.name != "captioning":
        return Logits(graph, load.configured(section, task))
    model = load.build(section, task, finished=True).eval()
    model.encoder = Encoder(graph, model.encoder.config)
    return model


class Graph:
    """A model that takes and gives tensors, by name."""

    def __init__(self, path: Path, *, alone: bool) -> None:
        """`alone`: each row in a pass of its own, without padding.

        Rows side by side, with one thread each, take a sixth less time than one after the other with all threads for
        each; for that the weights are held twice.
        """
        self.alone, self.threads = alone, torch.get_num_threads()
        self.wide = _session(path, self.threads)
        self.narrow = _session(path, 1) if alone and self.threads > 1 else self.wide
        self.names = [output.name for output in self.wide.get_outputs()]
        self.beside = ThreadPoolExecutor(self.threads, thread_name_prefix="onnx")

    def __call__(self, **given: torch.Tensor) -> dict[str, torch.Tensor]:
        if not self.alone:
            return self._pass(self.wide, given)
        rows = [_row(given, place) for place in range(len(next(iter(given.values()))))]
        rest = len(rows) % self.threads
        beside = len(rows) - rest if 2 * rest <= self.threads else len(rows)  # more than half of the threads have work
        found = [*self.beside.map(partial(self._pass, self.narrow), rows[:beside])]
        found += [self._pass(self.wide, row) for row in rows[beside:]]
        return {name: _stacked([row[name] for row in found]) for name in self.names}

    def _pass(self, session: onnxruntime.InferenceSession, given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        found = session.run(self.names, {name: tensor.numpy() for name, tensor in given.items()})
        return {name: torch.from_numpy(value) for name, value in zip(self.names, found, strict=True)}


def _session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")  # else threads run on where none works
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"], disabled_optimizers=SLOWER)


def _row(given: dict[str, torch.Tensor], place: int) -> dict[str, torch.Tensor]:
    """One row, without the padding at its right."""
    length = int(given["attention_mask"][place].sum()) if "attention_mask" in given else None
    return {name: tensor[place : place + 1, :length] for name, tensor in given.items()}


def _stacked(rows: list[torch.Tensor]) -> torch.Tensor:
    """Rows of one each, filled up to the longest with zeros."""
    if len({row.shape for row in rows}) == 1:
        return torch.cat(rows)
    return torch.nn.utils.rnn.pad_sequence([row[0] for row in rows], batch_first=True)


class Logits:
    """A whole model."""

    device = torch.device("cpu")

    def __init__(self, graph: Graph, config: Any) -> None:
        self.graph, self.config = graph, config

    def __call__(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(**self.graph(input_ids=input_ids, attention_mask=attention_mask))


class Encoder(torch.nn.Module):
    """The encoder of a model whose decoder stays in torch."""

    main_input_name = "pixel_values"

    def __init__(self, graph: Graph, config: Any) -> None:
        super().__init__()
        self.graph, self.config = graph, config

    def forward(self, pixel_values: torch.Tensor, **_: Any) -> BaseModelOutput:
        return BaseModelOutput(last_hidden_state=self.graph(pixel_values=pixel_values)["last_hidden_state"])
