"""However the work is split, the same is learned: real processes that talk through gloo."""

import copy
import functools
import runpy
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from llmray.job.errors import DataError
from llmray.job.schema import Job
from llmray.job.training import LocalSGD as Meetings
from llmray.job.training import Train
from llmray.model.load import processor
from llmray.tasks import make
from llmray.tasks.base import Tensors
from llmray.tasks.causal_lm import CausalLanguageModel
from llmray.training import parallel
from llmray.training.attempt import Attempt, Seat, Work
from llmray.training.checkpoint import load_state, save_state
from llmray.training.loop import fit, mean_loss
from llmray.training.optim import optimizer

pytestmark = pytest.mark.usefixtures("one_thread")
Workers: TypeAlias = Callable[[Callable[[int], Any], int], list[Any]]

CPU = torch.device("cpu")
ROWS, LENGTH, WORDS = 16, 8, 13
SHAPE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
WHOLE = CausalLanguageModel(None, None, chunked_loss=False)  # type: ignore[arg-type]
CHUNKED = CausalLanguageModel(None, None, chunked_loss=True)  # type: ignore[arg-type]


def learner_of(task: CausalLanguageModel = WHOLE) -> parallel.Learner:
    torch.manual_seed(0)
    # No biases: those of attention's keys would have no gradient but rounding, of which Adam makes whole steps.
    model = LlamaForCausalLM(LlamaConfig(vocab_size=WORDS, tie_word_embeddings=True, loss_type="ForCausalLM", **SHAPE))
    model.set_attn_implementation("eager")
    return parallel.Learner(model, task)


def parts(rows: slice, size: int, even: bool = False) -> Iterator[Tensors]:
    """The worker's rows of 32, again and again; unless `even`, every other row has two targets instead of seven."""
    ids = torch.randint(0, WORDS, (2 * ROWS, LENGTH), generator=torch.Generator().manual_seed(1))
    labels = ids.clone()
    if not even:
        labels[::3, 3:] = -100
    while True:
        for batch in (0, ROWS):
            mine = slice(batch + rows.start, batch + rows.stop)
            for part_ids, part_labels in zip(ids[mine].split(size), labels[mine].split(size), strict=True):
                yield {"input_ids": part_ids, "labels": part_labels, "attention_mask": torch.ones_like(part_ids)}


def own(rank: int, world: int) -> slice:
    share = ROWS // world
    return slice(rank * share, (rank + 1) * share)


def train_of(**keys: Any) -> Train:
    return Train(
        **{"batch_size": ROWS, "learning_rate": 0.001, "precision": "fp32", "log_every": 1, "schedule": "constant"}
        | keys
    )


def losses(found: Iterator[Any]) -> list[float]:
    return [row["loss"] for row in found]


def alone(steps: int, train: Train, even: bool = False, start: int = 0) -> list[float]:
    learner = learner_of()
    batches = islice(parts(slice(0, ROWS), ROWS // train.accumulate, even), start, None)
    return losses(fit(learner, batches, train, steps, optimizer=optimizer(learner, train)))


def ddp(rank: int, steps: int, train: Train, even: bool = False) -> list[float]:
    learner = learner_of()
    world = dist.get_world_size()
    batches, optim = parts(own(rank, world), ROWS // world // train.accumulate, even), optimizer(learner, train)
    return losses(fit(parallel.replicated(learner, CPU), batches, train, steps, optimizer=optim, world=world))


def sharded(train: Train, task: CausalLanguageModel = WHOLE) -> tuple[parallel.Learner, torch.optim.Optimizer]:
    learner = learner_of(task)
    parallel.shard(learner, dist.get_world_size(), CPU, half=train.precision == "bf16")
    return learner, parallel.with_whole_state(optimizer(learner.model, train))


def fsdp(rank: int, steps: int, train: Train, task: CausalLanguageModel = WHOLE) -> list[float]:
    learner, optim = sharded(train, task)
    world = dist.get_world_size()
    batches = parts(own(rank, world), ROWS // world // train.accumulate)
    return losses(fit(learner, batches, train, steps, optimizer=optim, world=world))


STEPS = 50


@functools.cache
def unsplit() -> list[float]:
    return alone(STEPS, train_of())


def agree(found: list[float], wanted: list[float]) -> bool:
    return len(found) == len(wanted) and all(abs(a - b) <= 1e-5 for a, b in zip(found, wanted, strict=True))


def test_accumulation_equals_the_whole_batch() -> None:
    assert unsplit()[-1] < unsplit()[0] - 0.1
    assert agree(alone(STEPS, train_of(accumulate=2)), unsplit())


@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_ddp_workers_equal_one(accumulate: int, workers: Workers) -> None:
    found = workers(lambda rank: ddp(rank, STEPS, train_of(accumulate=accumulate)), 2)
    assert all(agree(each, unsplit()) for each in found)


@pytest.mark.parametrize(("task", "accumulate"), [(WHOLE, 1), (WHOLE, 2), (CHUNKED, 1)])
def test_two_fsdp_workers_equal_one(task: CausalLanguageModel, accumulate: int, workers: Workers) -> None:
    found = workers(lambda rank: fsdp(rank, STEPS, train_of(accumulate=accumulate), task), 2)
    assert all(agree(each, unsplit()) for each in found)


def halved(rank: int, steps: int, train: Train) -> tuple[list[float], list[float], torch.dtype]:
    """Losses of DDP and of FSDP, and the type that a block's weights have while it computes."""
    learner, optim = sharded(train)
    seen: list[torch.dtype] = []
    learner.model.model.layers[0].self_attn.q_proj.register_forward_pre_hook(lambda q, _: seen.append(q.weight.dtype))
    found = losses(fit(learner, parts(own(rank, 2), ROWS // 2), train, steps, optimizer=optim, world=2))
    return ddp(rank, steps, train), found, seen[-1]


def test_fsdp_in_bf16_learns_what_ddp_in_bf16_does(workers: Workers) -> None:
    """To 1e-3 in loss: a sharded model adds up in bfloat16 between its blocks, where autocast keeps float32."""
    found = workers(lambda rank: halved(rank, 20, train_of(precision="bf16")), 2)
    for split, cut, held in found:
        assert held == torch.bfloat16
        assert len(cut) == 20
        assert cut == pytest.approx(split, abs=1e-3)
        assert cut[-1] < cut[0] - 0.05


def begun_sharded(rank: int, work: Work) -> None:
    def moved(*_: Any) -> None:
        raise AssertionError("the whole model was moved")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(PreTrainedModel, "to", moved)
        found = Attempt(work, Seat(rank, 2), {}, None)
    assert all(isinstance(weight, DTensor) for weight in found.model.parameters())


def test_a_device_never_holds_the_whole_of_a_sharded_model(models: dict[str, str], workers: Workers) -> None:
    job = Job.model_validate(
        {
            "task": {"name": "causal_lm", "seq_len": 16},
            "model": {"from": models["causal_lm"]},
            "scale": {"workers": 2, "parallel": "fsdp"},
            "train": {"precision": "fp32"},
        }
    )
    assert job.model is not None
    work = Work(job, make(job.task, processor(job.model)), total_steps=1)
    workers(lambda rank: begun_sharded(rank, work), 2)


def saved_by_fsdp(rank: int, folder: Path) -> None:
    train = train_of()
    learner, optim = sharded(train)
    list(fit(learner, parts(own(rank, 2), 8), train, 10, optimizer=optim, world=2, on_checkpoint=lambda _: None))
    if rank == 0:
        save_state(str(folder), learner.model, optim, 10, {})
    else:
        assert set(learner.model.state_dict().values()) == {None}
        optim.state_dict()


def resumed_by_fsdp(rank: int, folder: Path, world: int) -> list[float]:
    train = train_of()
    learner, optim = sharded(train)
    step, _ = load_state(str(folder), learner.model, optim)
    batches = islice(parts(own(rank, world), ROWS // world), step, None)
    return losses(fit(learner, batches, train, 20, optimizer=optim, world=world, start_step=step))


def test_what_two_fsdp_workers_saved_is_what_one_would_and_goes_on_at_one_or_four(
    workers: Workers, tmp_path: Path
) -> None:
    workers(lambda rank: saved_by_fsdp(rank, tmp_path / "saved"), 2)
    saved = torch.load(tmp_path / "saved" / "state.pt")
    learner, train = learner_of(), train_of()
    optim = optimizer(learner, train)
    list(fit(learner, parts(slice(0, ROWS), ROWS), train, 10, optimizer=optim))
    for name, weight in learner.model.state_dict().items():
        assert torch.allclose(saved["model"][name], weight, atol=1e-5)
    assert saved["model"].keys() == learner.model.state_dict().keys()
    assert saved["optimizer"]["param_groups"] == optim.state_dict()["param_groups"]
    for at, moments in optim.state_dict()["state"].items():
        for name, value in moments.items():
            assert torch.allclose(saved["optimizer"]["state"][at][name], value, atol=1e-5)

    one = learner_of()
    optim = optimizer(one, train)
    step, _ = load_state(str(tmp_path / "saved"), one.model, optim)
    batches = islice(parts(slice(0, ROWS), ROWS), step, None)
    found = losses(fit(one, batches, train, 20, optimizer=optim, start_step=step))
    assert agree(found, unsplit()[10:20])
    for each in workers(lambda rank: resumed_by_fsdp(rank, tmp_path / "saved", 4), 4):
        assert agree(each, unsplit()[10:20])


def validated(rank: int, counts: tuple[int, ...]) -> float:
    learner, _ = sharded(train_of())
    mine = islice(parts(own(rank, 2), 2), counts[rank])
    return mean_loss(learner, mine, train_of(), CPU, world=2)["eval_loss"]


def test_sharded_workers_validate_with_unequal_shares(workers: Workers) -> None:
    found = workers(lambda rank: validated(rank, (3, 1)), 2)
    batches = [*islice(parts(own(0, 2), 2), 3), *islice(parts(own(1, 2), 2), 1)]
    assert found == pytest.approx([mean_loss(learner_of(), batches, train_of(), CPU)["eval_loss"]] * 2, abs=1e-5)


def refused(rank: int) -> str:
    with pytest.raises(DataError) as caught:
        validated(rank, (2, 0))
    return str(caught.value)


def test_a_sharded_worker_without_a_row_to_validate_is_named(workers: Workers) -> None:
    def act(rank: int) -> str:
        if rank == 1:
            return refused(rank)
        batches = parallel.in_step(islice(parts(own(0, 2), 2), 2), sharded(train_of())[0], CPU)
        next(batches)
        return ""

    assert "fewer rows than there are workers" in workers(act, 2)[1]


def local(rank: int, steps: int, train: Train, meetings: Meetings) -> tuple[list[float], list[torch.Tensor]]:
    learner = learner_of()
    optim = parallel.LocalSGD(optimizer(learner, train), meetings, 2)
    found = losses(fit(learner, parts(own(rank, 2), 8, even=True), train, steps, optimizer=optim, world=2, alone=True))
    return found, [p.detach() for p in learner.parameters()]


def test_meeting_after_every_plain_step_is_synchronous_training(workers: Workers) -> None:
    """SGD without momentum, outer steps of the whole mean way, and workers with equally many targets."""
    train = train_of(optimizer="sgd", momentum=0.0, learning_rate=0.1, clip_norm=None)
    meetings = Meetings(inner_steps=1, learning_rate=1.0, momentum=0.0)
    found = workers(lambda rank: local(rank, STEPS, train, meetings), 2)
    wanted = alone(STEPS, train, even=True)
    assert wanted[-1] < wanted[0] - 0.1
    for each, _ in found:
        assert agree(each, wanted)


def test_workers_are_alone_between_meetings_and_one_after(workers: Workers) -> None:
    train, meetings = train_of(), Meetings(inner_steps=3, learning_rate=0.7, momentum=0.9)
    (_, first), (_, second) = workers(lambda rank: local(rank, 5, train, meetings), 2)
    assert not all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    (_, first), (_, second) = workers(lambda rank: local(rank, 6, train, meetings), 2)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def outer(rank: int) -> list[float]:
    """Worker 0 goes 1 down in each inner step, worker 1 goes 2."""
    weight = torch.nn.Parameter(torch.ones(1))
    optim = parallel.LocalSGD(torch.optim.SGD([weight], 1.0), Meetings(inner_steps=1), 2)
    seen = []
    for _ in range(2):
        weight.grad = torch.full((1,), rank + 1.0)
        optim.step()
        seen.append(float(weight))
    other = torch.nn.Parameter(weight.detach().clone())
    again = parallel.LocalSGD(torch.optim.SGD([other], 1.0), Meetings(inner_steps=1), 2)
    again.load_state_dict(copy.deepcopy(optim.state_dict()))
    for one, of in ((weight, optim), (other, again)):
        one.grad = torch.full((1,), rank + 1.0)
        of.step()
        seen.append(float(one))
    optim.meet()  # nothing was learned since
    return [*seen, float(weight)]


def test_the_outer_step_by_hand_and_after_a_resume(workers: Workers) -> None:
    """Mean way 1.5; momentum 1.5, then 0.9 × 1.5 + 1.5 = 2.85; Nesterov steps of 0.7 × (1.5 + 0.9 × momentum)."""
    first = 1 - 0.7 * (1.5 + 0.9 * 1.5)
    second = first - 0.7 * (1.5 + 0.9 * 2.85)
    third = second - 0.7 * (1.5 + 0.9 * (0.9 * 2.85 + 1.5))
    for found in workers(outer, 2):
        assert found == pytest.approx([first, second, third, third, third], abs=1e-5)


def asked(rank: int) -> list[bool]:
    weight = torch.nn.Parameter(torch.ones(1))
    optim = parallel.LocalSGD(torch.optim.SGD([weight], 1.0), Meetings(inner_steps=2), 2)
    optim.wish = lambda: rank == 1
    seen = []
    for _ in range(2):
        weight.grad = torch.ones(1)
        optim.step()
        seen.append(optim.stopping)
    return seen


def test_the_wish_of_one_to_stop_is_heard_by_all_at_the_next_meeting(workers: Workers) -> None:
    assert workers(asked, 2) == [[False, True]] * 2


class Moved(TorchDispatchMode):
    """Counts the bytes that each of n workers sends where the others' parts come to it in a ring."""

    sent = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "c10d":
            others = (dist.get_world_size() - 1) / dist.get_world_size()
            match func.overloadpacket.__name__:
                case "allreduce_":  # added up, then told
                    self.sent += 2 * others * sum(tensor.nbytes for tensor in args[0])
                case "_allgather_base_":
                    self.sent += others * args[0].nbytes
                case "_reduce_scatter_base_":
                    self.sent += others * args[1].nbytes
                case name:
                    raise AssertionError(name)
        return func(*args, **(kwargs or {}))


def moved(rank: int, split: str) -> tuple[float, int]:
    """Bytes a step, of 4, and weights."""
    learner, train = learner_of(), train_of(log_every=4)
    if split == "fsdp":
        parallel.shard(learner, 2, CPU, half=True)
    optim = optimizer(learner.model, train)
    if split == "diloco":
        optim = parallel.LocalSGD(optim, Meetings(inner_steps=2), 2)
    split_learner = parallel.replicated(learner, CPU) if split == "ddp" else learner
    with Moved() as counter:
        batches = parts(own(rank, 2), 8)
        list(fit(split_learner, batches, train, 4, optimizer=optim, world=2, alone=split == "diloco"))
    return counter.sent / 4, sum(weight.numel() for weight in learner.parameters())


@pytest.mark.parametrize(("split", "more"), [("ddp", ()), ("fsdp", ()), ("diloco", (2,))])
def test_as_many_bytes_move_as_the_model_of_scaling_says(split: str, more: tuple[int, ...], workers: Workers) -> None:
    """But for sums and flags, and the weights outside of blocks, which FSDP gathers once: less than 1 % here."""
    scaling = runpy.run_path(str(Path(__file__).resolve().parents[2] / "benchmarks" / "scaling.py"))
    for found, weights in workers(lambda rank: moved(rank, split), 2):
        assert found == pytest.approx(scaling[f"{split}_bytes"](weights, 2, *more), rel=0.01)
