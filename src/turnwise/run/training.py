"""A training run: steps with progress, metrics, checkpoints, Ctrl-C and exact resumption.

It knows nothing of algorithms: they write their own loop around `TrainingRun.steps`, or around
`TrainingRun.passes` where they learn from rows that do not change.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from turnwise.run.best import Best, load_best, save_best
from turnwise.run.distributed import World
from turnwise.run.errors import (
    Diverged,
    InputError,
    Interrupted,
    OutOfMemory,
    SettingError,
    is_out_of_memory,
)
from turnwise.run.files.checkpoint import KEPT, Checkpoints
from turnwise.run.files.fits import PARTS, expect_fits, expect_names
from turnwise.run.files.lines import keep_lines_before
from turnwise.run.files.trouble import named
from turnwise.run.files.whole import to_disk
from turnwise.run.learner import ADVICE, Learner, Stateful
from turnwise.run.metrics import OPTIMIZER
from turnwise.run.optim import rate_in_words, warmed_up
from turnwise.run.passes import Passes, Picked
from turnwise.run.progress import Progress
from turnwise.run.rehearsal import at_most
from turnwise.run.settings import Adam, AdamW
from turnwise.run.stopping import StopSignal
from turnwise.run.terminal import say
from turnwise.run.tracking import Nothing, Tracker, tracker

R = TypeVar("R", bound=Any)

HERE = ("step", "seconds", "torch_rng", "counts", "best")
"""what a checkpoint holds beside the parts of the learner"""
REHEARSED = 2
"""steps of a rehearsal"""


class Order(Protocol):
    """Which rows make the batch of a step: a function of the step alone, so that resumption goes on in it."""

    @property
    def lengths(self) -> Any:
        """Positions of each row; `take` gives those at some places."""
        ...

    def rows(self, step: int) -> np.ndarray:
        """Indices of rows."""
        ...

    def steps(self, epochs: float) -> int:
        """Batches in so many passes over the rows."""
        ...


@dataclass
class TrainingRun:
    """One training run in its folder.

    As a context it sees what fails in a step: `with run: train(..., run)` names the step, and leaves a
    checkpoint of the last one that ended, as Ctrl-C does.
    """

    folder: Path
    world: World = field(default_factory=World)
    what: str = "training"
    """Name of the progress bar."""
    checkpoint_every: int = 200
    """Steps between checkpoints."""
    checkpoints: int = KEPT
    """Checkpoints that stay: the latest ones."""
    log_every: int = 10
    """Steps between lines of metrics. Held-out batches are read at every tenth of those."""
    quiet: bool = False
    """Show no progress."""
    track: str = "none"
    """What else hears of metrics (`run/tracking.py`)."""
    through: Passes = field(default_factory=Passes)
    """How rows go through what learns."""
    lower: str = "expected smaller batches, or a smaller model"
    """What takes less memory."""
    keep: Literal["last", "best"] = "last"
    """What the run comes to: what it had learnt at its end, or where the held-out loss was least."""
    patience: int | None = None
    """The run ends after so many readings of held-out rows without a smaller loss; None: it does not."""
    criterion: str | None = None
    """That loss, as `report` names it; None: there is none to go by."""
    heldout_every: int | None = None
    """Steps between readings of held-out rows; None: ten times `log_every`."""

    def __post_init__(self) -> None:
        self.total = 0  # steps of the whole run, known when `steps` begins
        self._checkpoints = Checkpoints(self.folder, self.checkpoints)
        self._metrics = self.folder / "metrics.jsonl"
        self._learner: Learner | None = None  # known when `steps` begins
        self.counts: dict[str, int] = {}
        """What has been counted since the run began; a count that is not 0 is in every line of metrics."""
        self._live: dict[str, float] = {}
        self._tracker: Tracker = Nothing()  # opened when `steps` begins
        self._under_way: _Begun | None = None
        self.best = Best()
        """Where the held-out loss was least."""
        self._saved = 0  # steps that the checkpoint has
        self._closing = contextlib.ExitStack()  # the bar and the keys, while steps are under way
        self._seconds = 0.0
        self._began = time.monotonic()

    def __enter__(self) -> TrainingRun:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        # A loop that fails leaves the generator of its steps waiting: the bar and the keys are let go here.
        self._closing.close()
        if isinstance(error, Exception) and self._under_way is not None:
            self._failed(error, self._under_way)
            if is_out_of_memory(error):
                notes = " ".join(getattr(error, "__notes__", []))
                raise OutOfMemory(f"out of memory; {self.lower}. {notes}") from error

    def learner(
        self,
        module: nn.Module,
        settings: AdamW | Adam,
        *,
        target: nn.Module | None = None,
        methods: Sequence[str] = (),
        experience: Stateful | None = None,
        speaks: nn.Module | None = None,
    ) -> Learner:
        """`module` as what this run changes, on its device and spread over its processes as the target is.

        `methods` are entries other than `forward` through which the target is called. `speaks` is the part of
        the module that acts while it learns (`Learner.acting`).
        """
        twin = None if speaks is None else self.world.twin(speaks)
        # The optimizer must see the parameters as they are once placed: `fully_shard` replaces them.
        self.world.place(module)
        if target is not None:
            self.world.place(target, methods=methods)
        return Learner(module, settings, target, experience, self.world, speaks, twin, self.through)

    def steps(self, total: int, learner: Learner) -> Iterator[int]:
        """Numbers of the steps still to do, from the checkpoint on if there is one; saves every few of them.

        Ctrl-C in any process ends the step, saves, and raises Interrupted in all of them. A rehearsal ends
        after a few steps.
        """
        self.total = total = at_most(REHEARSED, total)
        self._learner = learner
        first = self._saved = self._restore(learner)
        if first > total:
            raise InputError(f"{self.folder}: {first} steps are done, more than {total}; expected no fewer")
        quiet = self.quiet or not self.world.main
        if 0 < first < total and not quiet:
            rate = rate_in_words(learner.settings, first, total)
            say(f"{self.what}: goes on after step {first} of {total}; {rate}")
        with self._closing as closing:
            stop = closing.enter_context(StopSignal())
            name = self.track if self.world.main else "none"
            self._tracker = closing.enter_context(tracker(name, self.folder, first))
            progress = closing.enter_context(Progress(self.what, total, done=first, quiet=quiet))
            waited = self.patience is not None and self.best.since >= self.patience
            for step in () if waited else range(first, total):
                learner.grad_norms.clear()
                self._under_way = _Begun.of(step, learner, self.counts)
                yield step
                self._under_way = None
                done = step + 1
                # One process alone must not stop: the others would wait for it in the next exchange.
                stopping = self.world.anyone(stop.pressed)
                waited = self.patience is not None and self.best.since >= self.patience
                if stopping or waited or done % self.checkpoint_every == 0 or done == total:
                    self._save(done, learner)
                progress.at(done, self._live)
                if stopping:
                    raise Interrupted(f"stopped after step {done} of {total}")
                if waited:
                    break
            if self.keep == "best" and self.best.step >= 0:
                load_best(self.folder, learner.module, self.world)

    def passes(
        self, rows: Sequence[R], order: Order, epochs: float, learner: Learner
    ) -> Iterator[tuple[int, list[list[R]], float]]:
        """(step, rows of its batch, learning rate) of the steps still to do in so many passes over the rows.

        The rows are this process's share of the global batch, in parts that go through the model one after
        the other.
        """
        settings, total = learner.settings, order.steps(epochs)
        assert isinstance(settings, AdamW)  # agents that learn from their own acting have no such rows
        for step in self.steps(total, learner):
            places = order.rows(step)
            picked = Picked(rows, places)
            # One process needs all of them. Of several each makes its own alone, when it takes its share.
            batch = list(picked) if self.world.size == 1 else picked
            longest = int(order.lengths.take(places).max())
            yield step, self.through.parts(batch, longest, self.world), warmed_up(settings, step, total)

    def report(
        self,
        step: int,
        sums: Mapping[str, Tensor],
        heldout: Callable[[], Iterable[Mapping[str, Tensor]]],
        finish: Callable[[Mapping[str, float]], Mapping[str, float]] = dict,
    ) -> None:
        """Log what a step was, where that is due: means of its `sums`, and of held-out batches.

        Sums are over decisions of this process's share, with their number as `decisions`. `heldout` gives
        the sums of one held-out batch after the other; `finish` may change the means before they are logged.
        """
        if self.due(step):
            unseen = self.heldout(step, heldout)
            found = finish(self.world.means(sums) | unseen)
            self.log(step, found)
            loss = found.get(f"heldout/{self.criterion}")
            if loss is not None and self.best.hear(float(loss), step) and self.keep == "best":
                assert self._learner is not None
                save_best(self.folder, self._learner.module, self.world)

    def log(self, step: int, metrics: Mapping[str, Tensor | float]) -> None:
        """Append metrics of a step (already of the global batch) and its gradient norm to metrics.jsonl."""
        values = {k: float(v) for k, v in metrics.items()}
        values |= {k: float(v) for k, v in self.counts.items() if v}
        if self._learner is not None:
            values |= self._learner.diagnostics()
        wrong = [k for k, v in values.items() if not math.isfinite(v)]
        if wrong:
            raise Diverged(f"{wrong[0]} is {values[wrong[0]]}; {ADVICE}")
        self._live = {k: v for k, v in values.items() if "/" not in k and k not in OPTIMIZER}
        if self.world.main:
            with named(self._metrics), self._metrics.open("a", encoding="utf-8") as f:
                f.write(json.dumps({"step": step, "seconds": round(self._elapsed(), 3), **values}) + "\n")
            self._tracker.log(step, values)

    def count(self, **found: int) -> None:
        """Add to what is counted over the whole run. All processes count alike."""
        for name, n in found.items():
            self.counts[name] = self.counts.get(name, 0) + n

    def due(self, step: int) -> bool:
        """Whether metrics of this step are logged: the first, the last, every `log_every`-th, and those after
        which held-out rows are read.
        """
        return (step + 1) % self.log_every == 0 or step in (0, self.total - 1) or self._reads(step)

    def _reads(self, step: int) -> bool:
        """Whether held-out rows are read after this step."""
        every = self.heldout_every or 10 * self.log_every
        return step == self.total - 1 or (step + 1) % every == 0

    def heldout(self, step: int, batches: Callable[[], Iterable[Mapping[str, Tensor]]]) -> dict[str, float]:
        """Means per decision over held-out batches, named heldout/...; empty where they are not due.

        `batches` gives the sums of one batch after the other, and is called without gradients.
        """
        if not self._reads(step):
            return {}
        whole: dict[str, Tensor] = {}
        # Sums over all batches first, so that each decision counts alike: a mean of means would not do.
        with torch.no_grad(), self.through.precision(self.world.device):
            for sums in batches():
                for name, value in sums.items():
                    whole[name] = whole.get(name, torch.zeros((), dtype=torch.float64)) + value.double().cpu()
        decisions = float(whole.pop("decisions", torch.zeros(())))
        if not decisions:
            return {}
        return {f"heldout/{name}": float(value) / decisions for name, value in whole.items()}

    def _elapsed(self) -> float:
        """Seconds of training, those before an interruption included."""
        return self._seconds + time.monotonic() - self._began

    def _save(self, done: int, learner: Learner) -> None:
        """Commit what `done` steps came to. The checkpoint before it stays, all earlier ones go."""
        learner.expect_finite()
        state = learner.state()
        if self.world.main:
            here = {"step": done, "seconds": self._elapsed(), "torch_rng": torch.get_rng_state()}
            here |= {"counts": self.counts, "best": self.best.state()}
            if self._metrics.exists():  # a checkpoint is never ahead of the metrics of its steps
                to_disk(self._metrics)
            self._checkpoints.save(done, here | state)
        self._saved = done
        self.world.barrier()

    def _failed(self, error: Exception, begun: _Begun) -> None:
        """Say which step failed, and save the last one that ended where nothing of this one has been learnt.

        Weights that diverge are not saved: what led there is better gone back on, with a smaller step. Nor
        does one of several processes save, since the others may be waiting for it elsewhere.
        """
        done, learner = begun.step, self._learner
        where = f"step {done + 1} of {self.total}"
        if isinstance(error, InputError) and not isinstance(error, SettingError):
            error.args = (f"{where}: {error}",)
        else:
            error.add_note(f"This happened in {where}.")
        if learner is None or not self.world.main:
            return
        alone = self.world.size == 1 and not isinstance(error, Diverged)
        if alone and done > self._saved and begun == _Begun.of(done, learner, self.counts):
            try:
                torch.set_rng_state(begun.rng)
                self.counts = begun.counts
                self._save(done, learner)
            except Exception as e:  # a device in a bad state, a full disk: the first error is the one to tell
                error.add_note(f"No checkpoint of it could be written ({type(e).__name__}: {e}).")
        if self._saved:
            error.add_note(
                f"{self.folder} has a checkpoint of step {self._saved}: a resumed run goes on there."
            )

    def _restore(self, learner: Learner) -> int:
        """Continue from the latest checkpoint, if there is one; the first step to do. Rank 0 alone reads."""
        self._began = time.monotonic()
        state: dict[str, Any] = {}

        def read() -> dict[str, Any]:
            self.folder.mkdir(parents=True, exist_ok=True)
            state.update(self._checkpoints.latest())
            if not state:
                keep_lines_before(self._metrics, 0)
                return {}
            path = self._checkpoints.path(self._checkpoints.steps()[-1])
            try:
                expect_names("it", state, {*HERE, *PARTS})
                expect_fits(state, learner.module, learner.target, learner.experience is not None)
            except InputError as e:
                raise InputError(f"{path}: {e}; expected a checkpoint of this very run") from e
            here = {k: state.pop(k) for k in HERE}
            keep_lines_before(self._metrics, here["step"])
            return here

        here = self.world.on_main(read)
        if not here:
            return 0
        learner.load(state)
        torch.set_rng_state(here["torch_rng"])
        self.counts = here["counts"]
        self.best.load(here["best"])
        self._seconds = here["seconds"]
        return here["step"]


@dataclass(frozen=True)
class _Begun:
    """A step that has begun, and what tells whether it has changed anything."""

    step: int
    updates: int
    changes: int
    rng: Tensor = field(compare=False)
    """Of PyTorch, when it began."""
    counts: dict[str, int] = field(compare=False)

    @classmethod
    def of(cls, step: int, learner: Learner, counts: Mapping[str, int]) -> _Begun:
        """Where the learner stands now."""
        changes = 0 if learner.experience is None else learner.experience.changes
        return cls(step, learner.updates, changes, torch.get_rng_state(), dict(counts))
