"""Ways to split a run among workers: what each holds, and which bytes move when.

It does not know how a step is taken or what it is for.  One worker alone splits nothing; all ways split batches.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeAlias, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from llmray.job.errors import DataError
from llmray.job.training import LocalSGD as Meetings
from llmray.tasks.base import Task, Tensors
from llmray.training.optim import blocks

State: TypeAlias = dict[str, Any]
Batch = TypeVar("Batch")


class Learner(nn.Module):
    """A model under its task's loss: called with a batch, it gives the summed loss and the number of targets, of which
    there may be none.

    It is what workers split, so that a loss may use weights of the model directly.
    """

    def __init__(self, model: nn.Module, task: Task) -> None:
        super().__init__()
        self.model = model
        self.task = task

    def forward(self, batch: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
        loss, targets = self.task.loss(self.model, batch)
        return torch.where(targets > 0, loss, 0.0), targets  # a mean over none, which some models give, is no number


def replicated(learner: nn.Module, device: torch.device) -> nn.Module:
    """DDP: every worker holds all weights, gradients and optimiser state.

    Each step adds up the gradients, once, in the last accumulation pass and while its backward pass runs: each of n
    workers sends and receives 2 (n - 1) / n × 4 bytes a learned weight.
    """
    # Searching for unused weights costs little, serves models with an idle pooler, and keeps DDP from laying its
    # buckets out anew after the first step: a resumed run then adds up in the same order as an unbroken one.
    devices = [device] if device.type == "cuda" else None
    return DistributedDataParallel(learner, devices, find_unused_parameters=True, broadcast_buffers=False)


def shard(learner: Learner, world: int, device: torch.device, half: bool) -> None:
    """FSDP2: every worker keeps 1/n of the weights, gradients and optimiser state; to be called before the optimiser.

    The model may lie in the host's memory: it comes to the device, and is cut there, one block after another.
    Each pass gathers a block's weights before its forward and again before its backward pass, and adds up its
    gradients after it, in the last accumulation pass: 3 (n - 1) / n × 4 bytes a weight in a step of one pass, 2 (n - 1)
    / n × 4 in each further one; gathered weights take half of that where `half` computes in bfloat16.  Embeddings and
    head are gathered together once a pass.
    """
    mesh = init_device_mesh(device.type, (world,))
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32) if half else None
    for module in (*blocks(learner.model), learner):
        fully_shard(module, mesh=mesh, mp_policy=policy or MixedPrecisionPolicy())
    learner.model.register_state_dict_post_hook(_gather_weights)
    learner.model.register_load_state_dict_pre_hook(_split_weights)


def with_whole_state(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimiser of a sharded model, whose state dict is, as the model's, that of one which is not sharded.

    To take a state dict, every worker must ask, for all send their share (4 bytes a number); only the first gets it.
    To load one, each worker has it whole and keeps its share.
    """
    optimizer.register_state_dict_post_hook(lambda _, state: _gathered(state))
    optimizer.register_load_state_dict_pre_hook(_split_moments)
    return optimizer


def _gather_weights(model: nn.Module, state: State, prefix: str, _: Any) -> None:
    state.update(_gathered(dict(state)))


def _gathered(value: Any) -> Any:
    if isinstance(value, DTensor):
        whole = value.full_tensor().cpu()
        return whole if dist.get_rank() == 0 else None
    if isinstance(value, dict):
        return {key: _gathered(item) for key, item in value.items()}
    return value


def _split_weights(model: nn.Module, state: State, prefix: str, *_: Any) -> None:
    for name, weight in model.named_parameters(remove_duplicate=False):
        state[prefix + name] = _split(state[prefix + name], weight)


def _split_moments(optimizer: torch.optim.Optimizer, state: State) -> State:
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    moments = {
        at: {name: _split(value, weights[at]) for name, value in kept.items()} for at, kept in state["state"].items()
    }
    return state | {"state": moments}


def _split(value: Any, weight: torch.Tensor) -> Any:
    """A worker's share of a tensor that goes with a weight; numbers beside it stay whole."""
    if not (isinstance(weight, DTensor) and isinstance(value, torch.Tensor) and value.shape == weight.shape):
        return value
    return distribute_tensor(value.to(weight.device), weight.device_mesh, weight.placements, src_data_rank=None)


@contextmanager
def _unsynced(learner: FSDPModule) -> Iterator[None]:
    learner.set_requires_gradient_sync(False)
    yield
    learner.set_requires_gradient_sync(True)


def quiet(learner: nn.Module) -> AbstractContextManager[None]:
    """Within, gradients are kept and not exchanged: more passes of the same step follow."""
    if isinstance(learner, DistributedDataParallel):
        return learner.no_sync()
    return _unsynced(learner) if isinstance(learner, FSDPModule) else nullcontext()


def in_step(batches: Iterable[Batch], learner: nn.Module, device: torch.device) -> Iterator[tuple[Batch, bool]]:
    """A worker's batches, and whether each counts.

    A sharded model answers only all workers at once: who has fewer batches gives its last one again, and 8 bytes move
    for each batch.
    """
    batch, left = None, iter(batches)
    while True:
        found = next(left, None)
        if isinstance(learner, FSDPModule):
            having = torch.tensor(float(found is not None), device=device)
            dist.all_reduce(having)
            if having and found is None and batch is None:
                raise DataError("data.eval: has fewer rows than there are workers; give more, or lower scale.workers")
        else:
            having = torch.tensor(found is not None)
        if not having:
            return
        batch = batch if found is None else found
        assert batch is not None
        yield batch, found is not None


class LocalSGD(torch.optim.Optimizer):
    """DiLoCo (https://arxiv.org/abs/2311.08105): workers take `inner_steps` steps of their own, then one together.

    Every worker holds all weights, twice, and its own inner optimiser.  Nothing moves in an inner step.  At a meeting
    the workers add up how far each weight went, and all take an outer Nesterov step from where they last met: each of n
    workers sends and receives 2 (n - 1) / n × 4 bytes a learned weight, as in one step of DDP.  A run that resumes goes
    on with the inner optimiser of the first worker.
    """

    def __init__(self, inner: torch.optim.Optimizer, meetings: Meetings, world: int) -> None:
        self.inner, self.meetings, self.world = inner, meetings, world
        self.weights = [p for group in inner.param_groups for p in group["params"]]
        self.met = [p.detach().clone() for p in self.weights]
        momentum = meetings.momentum
        self.outer = torch.optim.SGD(self.met, meetings.learning_rate, momentum, nesterov=momentum > 0)
        self.taken = 0
        self.wish: Callable[[], bool] = lambda: False
        self.stopping = False
        """Whether some worker had the wish to stop when all last met."""

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        return self.inner.param_groups

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.inner.zero_grad(set_to_none)

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        self.inner.step()
        self.taken += 1
        if self.taken == self.meetings.inner_steps:
            self.meet()

    @torch.no_grad()
    def meet(self) -> None:
        """Take the outer step now, unless nothing was learned since the last one."""
        if not self.taken:
            return
        for met, weight in zip(self.met, self.weights, strict=True):
            met.grad = met - weight
            dist.all_reduce(met.grad)
            met.grad /= self.world
        self.outer.step()
        for met, weight in zip(self.met, self.weights, strict=True):
            weight.copy_(met)
        wishes = torch.tensor(float(self.wish()), device=self.met[0].device)
        dist.all_reduce(wishes)
        self.taken, self.stopping = 0, bool(wishes)

    def state_dict(self) -> State:
        return self.inner.state_dict() | {"outer": self.outer.state_dict()}

    def load_state_dict(self, state_dict: State) -> None:
        """The weights must be loaded before."""
        self.inner.load_state_dict(state_dict)
        self.outer.load_state_dict(state_dict["outer"])
        for met, weight in zip(self.met, self.weights, strict=True):
            met.copy_(weight.detach())
