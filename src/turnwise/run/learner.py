"""What a run changes: the module that learns, its optimizer, its slow copies, what it collects by itself."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from turnwise.run import distributed
from turnwise.run.distributed import World
from turnwise.run.errors import Diverged
from turnwise.run.metrics import added
from turnwise.run.optim import optimizer_of
from turnwise.run.passes import Passes
from turnwise.run.settings import Adam, AdamW

ADVICE = "expected a smaller lr, or smaller rewards"
"""what helps against numbers that are none"""
WHILE_LEARNING = "only_while_learning"
"""name of a mark on modules that are in training mode in a gradient step alone, whatever is around them"""
P = TypeVar("P")
Q = TypeVar("Q", bound=Sequence[Any])


class Stateful(Protocol):
    """Something that a checkpoint holds beside weights: episodes under way, a replay of past ones."""

    @property
    def changes(self) -> int:
        """How often it has changed: a step that failed before it changed anything has not begun."""
        ...

    def state(self) -> Any:
        """Tensors, numbers, texts, and lists and dicts of them."""
        ...

    def load(self, state: Any) -> None:
        """Go on from a `state` that was saved."""
        ...


@dataclass
class Learner:
    """Everything that training changes: the module that learns, its optimizer, slow copies beside it."""

    module: nn.Module
    settings: AdamW | Adam
    """Of the optimizer; an algorithm's `Config` has them."""
    target: Any = None
    """A slow copy of the module or of a part of it, if the algorithm has one."""
    experience: Stateful | None = None
    """What the algorithm carries from step to step beside weights, alike on all processes."""
    world: World = field(default_factory=World)
    speaks: Any = None
    """The part of the module that acts while it learns, if one does."""
    twin: Any = None
    """What acts in its place: itself, or a whole copy of it if the module is split over processes."""
    through: Passes = field(default_factory=Passes)
    """How many rows go through the module at a time, and in what precision."""
    optimizer: torch.optim.Optimizer = field(init=False)
    wrapped: nn.Module = field(init=False)
    """The module to call: its backward synchronises gradients, if there are several processes."""
    grad_norms: list[float] = field(default_factory=list, init=False, repr=False)
    """Gradient norms of the step under way, before they are clipped; `TrainingRun.steps` empties it."""
    updates: int = field(default=0, init=False)
    """Gradient steps that were begun; one that is refused is none."""

    def __post_init__(self) -> None:
        self.optimizer = optimizer_of(self.module, self.settings)
        self.wrapped = self.world.wrap(self.module)
        # What drops out while something is learnt and at no other time: adapters that were asked to.
        self._noisy = [m for m in self.module.modules() if getattr(m, WHILE_LEARNING, False)]

    def learn(
        self, parts: Sequence[P], loss: Callable[[P], tuple[Tensor, Mapping[str, Tensor]]], *, lr: float
    ) -> dict[str, Tensor]:
        """One gradient step on the sum of the losses of `parts`; the sums that are logged, added up.

        `loss` gives a part's share of the loss, and what is logged of it. Each part is gone back through
        before the next is read, so that memory is that of one.
        """
        sums: dict[str, Tensor] = {}
        # Modules that are split are put together at each reading, by all processes: each reads equally often.
        most = max(self.world.gather(lambda: len(parts))) if self.world.splits else len(parts)

        def each() -> Iterator[Tensor]:
            for i in range(most):
                with self.through.precision(self.world.device):
                    share, found = loss(parts[min(i, len(parts) - 1)])
                if i >= len(parts):
                    yield 0 * share
                    continue
                sums.update(added(sums, {name: x.detach() for name, x in found.items()}))
                yield share

        for m in self._noisy:
            m.train()
        try:
            self.descend(each(), lr=lr, parts=most)
        finally:
            for m in self._noisy:
                m.eval()
        return sums

    def learn_means(
        self, parts: Sequence[Q], loss: Callable[[Q], tuple[Tensor, Mapping[str, Tensor]]], *, lr: float
    ) -> dict[str, Tensor]:
        """The same for losses that are means over items: each part counts by its share of all items.

        On n processes by its share of an n-th of them, as gradients are averaged.
        """
        own = sum(item.weight for part in parts for item in part)
        count = float(self.world.total(torch.tensor(float(own)))) / self.world.size

        def share(part: Q) -> tuple[Tensor, Mapping[str, Tensor]]:
            mean, sums = loss(part)
            return mean * (len(part) / count), sums

        return self.learn(parts, share, lr=lr)

    def descend(self, loss: Tensor | Iterator[Tensor], *, lr: float, parts: int = 1) -> None:
        """One gradient step at the scheduled learning rate `lr`, the global gradient norm clipped.

        `loss` may come in so many `parts`, which add up to it. Diverged, and no step, if the loss or the
        gradient norm is not finite: weights stay as they were. A GPU is waited for once, for these two
        numbers; the copy of the next batch would wait for it anyway.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad()
        total = torch.zeros((), dtype=torch.float64, device=self.world.device)
        shares = iter([loss]) if isinstance(loss, Tensor) else loss
        for i in range(parts):
            with self.world.apart(self.wrapped) if i < parts - 1 else contextlib.nullcontext():
                share = next(shares)
                share.backward()
            total = total + share.detach().double()
        norm = nn.utils.clip_grad_norm_(self.module.parameters(), self.settings.grad_clip)
        value, length = torch.stack([total, distributed.whole(norm).double()]).tolist()
        # A loss is that of this process's share: one that is no number here has to stop all processes.
        if self.world.anyone(not (math.isfinite(value) and math.isfinite(length))):
            self.optimizer.zero_grad()
            self.expect_finite()  # weights that came so, from a folder, are no fault of this step
            raise Diverged(f"the loss is {value:g} and its gradient has the norm {length:g}; {ADVICE}")
        self.grad_norms.append(length)
        self.updates += 1
        self.optimizer.step()

    def acting(self) -> Any:
        """What acts, with the weights of now, whole on this process. All processes call it."""
        self.world.refresh(self.twin, self.speaks)
        return self.twin

    def diagnostics(self) -> dict[str, float]:
        """Mean gradient norm and the learning rate of a step; empty if nothing has been learnt in it."""
        if not self.grad_norms:
            return {}
        mean = sum(self.grad_norms) / len(self.grad_norms)
        return {"grad_norm": mean, "lr": self.optimizer.param_groups[0]["lr"]}

    def expect_finite(self) -> None:
        """Diverged if a weight is not finite: a step too long makes one so without any gradient's fault.

        All processes call it.
        """
        wrong = [n for n, p in self.module.named_parameters() if not distributed.own(p).isfinite().all()]
        if self.world.anyone(bool(wrong)):
            where = wrong[0] if wrong else "on another process"
            advice = ADVICE if self.updates else "expected a model to begin with whose weights are"
            raise Diverged(f"weights are not finite ({where}); {advice}")

    def state(self) -> dict[str, Any]:
        """Whole weights and optimizer state (on rank 0)."""
        return {
            "module": distributed.module_state(self.module),
            "optimizer": distributed.optimizer_state(self.module, self.optimizer),
            "target": None if self.target is None else distributed.module_state(self.target),
            "experience": None if self.experience is None else self.experience.state(),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`, on any number of processes; only rank 0's is read."""
        distributed.load_module(self.module, state.get("module", {}))
        distributed.load_optimizer(self.module, self.optimizer, state.get("optimizer", {}))
        if self.target is not None:
            distributed.load_module(self.target, state.get("target", {}))
        if self.experience is not None:
            self.experience.load(self.world.on_main(lambda: state["experience"]))
