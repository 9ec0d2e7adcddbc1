"""Training on one or several processes; one process is the trivial case.

`torchrun --nproc-per-node N -m turnwise.cli -- train ...` starts N processes. Each takes every N-th row of
the same global batch and divides its sum of losses by a constant, an Nth of the decisions of an average
batch. Gradients are averaged over processes, so that the numbers are those of one process. (A mean per
process would give decisions more weight where there are few of them: losses/reduce.py says why that is a
bias.)
"""

from __future__ import annotations

import atexit
import contextlib
import copy
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from turnwise.run.errors import InputError

Strategy = Literal["ddp", "fully_shard"]
T = TypeVar("T")
M = TypeVar("M", bound=nn.Module)

LAYER_LISTS = (".layers", ".h", ".block")
"""Names of the lists of transformer blocks in `transformers` models (Llama-like, GPT-2-like, T5-like)."""


class Row(Protocol):
    """Something to learn from that can also take part in a step and teach nothing."""

    def idle(self) -> Self:
        """Something to read in its place that adds nothing to any sum."""
        ...


R = TypeVar("R", bound=Row)


@dataclass(frozen=True)
class World:
    """The processes of a training run, seen from one of them; `device` is its own."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    strategy: Strategy = "ddp"

    @property
    def main(self) -> bool:
        """Whether this process writes files and speaks to people."""
        return self.rank == 0

    @property
    def splits(self) -> bool:
        """Whether modules that are placed are split over the processes."""
        return self.size > 1 and self.strategy == "fully_shard"

    def own(self, items: Sequence[T]) -> tuple[list[T], bool]:
        """This process's items of a global batch, and whether they count.

        If there are fewer items than processes, those without one read the first item, so that they take part
        in every exchange, and it must not count.
        """
        mine = list(items[self.rank :: self.size])
        return (mine, True) if mine else ([items[0]], False)

    def gather(self, do: Callable[[], T]) -> list[T]:
        """What `do` gives on every process, in their order, on all of them.

        An error in one is an error in all: the others do not wait for an answer that will never come.
        """
        if self.size == 1:
            return [do()]
        found: list[Any] = [None, None]
        try:
            found[0] = do()
        except Exception as e:
            found[1] = e
        answers: list[Any] = [None] * self.size
        said = [found[0], None if found[1] is None else f"{type(found[1]).__name__}: {found[1]}"]
        dist.all_gather_object(answers, said)
        if found[1] is not None:
            raise found[1]
        failed = next(((i, text) for i, (_, text) in enumerate(answers) if text is not None), None)
        if failed is not None:
            raise InputError(f"process {failed[0]} of {self.size} failed: {failed[1]}")
        return [answer for answer, _ in answers]

    def share(self, rows: Sequence[R]) -> list[R]:
        """This process's rows of a global batch.

        If there are fewer rows than processes, those without one still have to take part in every exchange
        of gradients. They read a row that adds nothing to any sum.
        """
        return list(rows[self.rank :: self.size]) or [self.idle(rows[0])]

    def idle(self, row: R) -> R:
        """Something to read that adds nothing to any sum."""
        return row.idle()

    def total(self, x: Tensor) -> Tensor:
        """Sum over all processes in float64, the same on every one of them."""
        x = x.detach().to(self.device, torch.float64, copy=True)
        if self.size > 1:
            dist.all_reduce(x)
        return x

    def means(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Sums over decisions of every process -> means per decision; `sums["decisions"]` is their number.

        Empty if no process had a decision to learn from.
        """
        stacked = self.total(torch.stack([v.detach().double() for v in sums.values()])).tolist()
        whole = dict(zip(sums, stacked, strict=True))
        decisions = whole.pop("decisions")
        return {name: value / decisions for name, value in whole.items()} if decisions else {}

    def anyone(self, yes: bool) -> bool:
        """Whether any process says yes; all of them get the same answer."""
        return yes if self.size == 1 else bool(self.total(torch.tensor(float(yes))) > 0)

    def on_main(self, do: Callable[[], T]) -> T:
        """Call `do` on rank 0 alone. Every process gets its result, or its InputError."""
        answer: list[Any] = [None, None]
        if self.main:
            try:
                answer = [do(), None]
            except InputError as e:
                answer = [None, e]
        if self.size > 1:
            dist.broadcast_object_list(answer, 0)
        if answer[1] is not None:
            raise answer[1]
        return answer[0]

    def place(self, module: nn.Module, methods: Sequence[str] = ()) -> None:
        """Move a module to this process's device, with rank 0's weights; `fully_shard` splits them in place.

        Call it before the optimizer sees the parameters. Layers are split one by one, so that only one of
        them is whole at a time. `methods` are entries other than `forward` through which it is called.
        """
        module.to(self.device)
        if self.size == 1:
            return
        for x in (*module.parameters(), *module.buffers()):
            dist.broadcast(x.detach(), 0)
        if self.strategy == "ddp":
            return
        mesh = init_device_mesh(self.device.type, (self.size,))
        for layers in [m for name, m in module.named_modules() if name.endswith(LAYER_LISTS)]:
            for layer in layers.children():
                fully_shard(layer, mesh=mesh)
        # The outermost part is split again after a forward too: one without a backward (a target's, a
        # held-out batch's) would otherwise leave whole tensors where `polyak_` expects shards.
        fully_shard(module, mesh=mesh, reshard_after_forward=True)
        for name in methods:
            register_fsdp_forward_method(module, name)

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module whose backward synchronises gradients; call it instead of the placed one."""
        if self.size == 1 or self.strategy == "fully_shard":
            return module
        # Buffers are constants (angles of positions); to send them at each forward would tie processes that
        # read unequally often together.
        with warnings.catch_warnings():
            # PyTorch 2.13 renames the setting, and versions before it do not know the new name.
            warnings.filterwarnings("ignore", message=".broadcast_buffers. is deprecated")
            return DistributedDataParallel(module, broadcast_buffers=False)

    def twin(self, module: M) -> M:
        """What can act here once `module` is placed: itself, or a whole copy if it will be split.

        `refresh` gives the copy the weights as they are then.
        """
        return copy.deepcopy(module).to(self.device) if self.splits else module

    def refresh(self, twin: nn.Module, module: nn.Module) -> None:
        """Give a twin the weights of the module that was placed. All processes call it."""
        if twin is not module:
            options = StateDictOptions(full_state_dict=True)
            twin.load_state_dict(get_model_state_dict(module, options=options))

    def expect_same(self, what: str, found: str) -> None:
        """InputError on every process unless all have found the same; `what` it is, in words. All call it."""
        if self.size == 1:
            return
        every: list[Any] = [None] * self.size
        dist.all_gather_object(every, found)
        if other := next((i for i, x in enumerate(every) if x != every[0]), None):
            raise InputError(
                f"process 0 has {every[0]}, and process {other} has {every[other]}; expected {what} that all "
                "processes find alike (a folder that every machine sees, or equal copies of it)"
            )

    def apart(self, wrapped: nn.Module) -> contextlib.AbstractContextManager[object]:
        """Gradients stay this process's own, to be exchanged with those of a later backward.

        `fully_shard` has no whole gradients to keep: it exchanges them each time, and adds up its own parts.
        """
        ddp = isinstance(wrapped, DistributedDataParallel)
        return wrapped.no_sync() if ddp else contextlib.nullcontext()

    def barrier(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            dist.barrier()


ALONE = World()
"""one process"""


def start(device: str, strategy: Strategy = "ddp") -> World:
    """Join the processes that `torchrun` launched, or stand alone."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if size == 1:
        return World(device=torch.device(kind), strategy=strategy)
    rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    own = torch.device("cuda", local) if kind == "cuda" else torch.device(kind)
    if own.type == "cuda":
        torch.cuda.set_device(own)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if own.type == "cuda" else "gloo")
        atexit.register(stop)
        # Heads return squeezed views. The warning is about changing them in place, which nothing does.
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    return World(rank, size, own, strategy)


def stop() -> None:
    """Leave the group of processes, if there is one. A process that exits leaves it by itself."""
    if dist.is_initialized():
        dist.destroy_process_group()
        # Gloo's threads may still hold tensors of the last exchange. To let go of them they need the
        # interpreter: they get it now, or abort the process when they ask for it after its end.
        time.sleep(0.2)


_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)
_SPREAD = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)


def whole(x: Tensor) -> Tensor:
    """A tensor that `fully_shard` may have spread over the processes, whole on each. All of them call it."""
    return x.full_tensor() if isinstance(x, DTensor) else x


def own(x: Tensor) -> Tensor:
    """What this process holds of a tensor that `fully_shard` may have spread over all of them."""
    return x.to_local() if isinstance(x, DTensor) else x


def module_state(module: nn.Module) -> dict[str, Any]:
    """Whole weights on rank 0, however the module is spread, and nothing elsewhere. All processes call it."""
    return dict(get_model_state_dict(module, options=_WHOLE))


def copy_whole(spread: nn.Module, plain: nn.Module) -> None:
    """Give `plain`, on rank 0, the weights of a module that was placed: one that can be saved and act.

    All processes call it. A module that `fully_shard` split stays split.
    """
    state = module_state(spread)
    if state:
        plain.load_state_dict(state)


def optimizer_state(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Whole optimizer state by parameter names on rank 0, nothing elsewhere. All processes call it."""
    return dict(get_optimizer_state_dict(module, optimizer, options=_WHOLE))


def load_module(module: nn.Module, state: dict[str, Any]) -> None:
    """Inverse of `module_state` on any number of processes; only rank 0's `state` is read."""
    set_model_state_dict(module, state, options=_SPREAD if dist.is_initialized() else _WHOLE)


def load_optimizer(module: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Inverse of `optimizer_state` on any number of processes; only rank 0's `state` is read."""
    set_optimizer_state_dict(module, optimizer, state, options=_SPREAD if dist.is_initialized() else _WHOLE)
