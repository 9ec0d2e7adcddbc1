"""What a run leaves behind that fails in a step: a named step, a checkpoint that is good, nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from turnwise.run.errors import Diverged, InputError, SettingError
from turnwise.run.files.checkpoint import Checkpoints
from turnwise.run.learner import Learner
from turnwise.run.settings import AdamW
from turnwise.run.training import TrainingRun


def weight(value: float = 0.0) -> nn.Module:
    module = nn.Module()
    module.w = nn.Parameter(torch.tensor([value]))
    return module


def train(
    folder: Path,
    module: Any,
    in_step: Callable[[int], None] = lambda step: None,
    *,
    loss: Callable[[int, Any], torch.Tensor] = lambda step, w: w * torch.rand(()),
    steps: int = 20,
    lr: float = 0.1,
    experience: Any = None,
    every: int = 100,
) -> float:
    """Steps in each of which the loss is w times a random number, after `in_step` has been called."""
    with TrainingRun(folder, checkpoint_every=every, quiet=True) as run:
        learner = Learner(module, AdamW(lr), experience=experience)
        for step in run.steps(steps, learner):
            in_step(step)
            learner.descend(loss(step, module.w).sum(), lr=lr)
    return float(module.w.detach())


def stored(folder: Path) -> dict[str, Any]:
    return dict(Checkpoints(folder).latest())


@pytest.mark.parametrize("found", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_ends_the_run_before_its_update(tmp_path: Path, found: float) -> None:
    """In step 7 of 20, which is logged by nobody: weights are those of step 6, and no checkpoint is made."""
    seen = []
    module = weight()
    with pytest.raises(Diverged, match=r"^step 7 of 20: the loss is (nan|inf) .* expected a smaller lr"):
        train(
            tmp_path,
            module,
            lambda step: seen.append(float(module.w.detach())),
            loss=lambda step, w: w * (found if step == 6 else 1.0) + (found if step == 6 else 0.0),
        )
    assert len(seen) == 7 and float(module.w.detach()) == seen[-1]
    assert not stored(tmp_path)


def test_a_gradient_that_is_not_finite_is_found_though_the_loss_is(tmp_path: Path) -> None:
    """sqrt(w) at w = 0 is 0, and its derivative is infinite."""
    module = weight()
    with pytest.raises(Diverged, match=r"^step 1 of 20: the loss is 0 and its gradient has the norm inf"):
        train(tmp_path, module, loss=lambda step, w: w.sqrt())
    assert float(module.w.detach()) == 0.0


def test_a_model_that_comes_with_weights_that_are_none_is_no_fault_of_the_learning_rate(
    tmp_path: Path,
) -> None:
    with pytest.raises(Diverged, match=r"weights are not finite \(w\); expected a model to begin with whose"):
        train(tmp_path, weight(float("nan")), loss=lambda step, w: w * w)


def test_weights_that_are_not_finite_are_never_a_checkpoint(tmp_path: Path) -> None:
    """Steps of .04e38 from 3.3e38: the third one leaves float32, which ends at 3.403e38; the gradient is -1.

    The checkpoint of step 2 stays. The third step is the last: it would have been saved and called a result.
    """
    with pytest.raises(Diverged, match=r"weights are not finite \(w\)"):
        train(tmp_path, weight(3.3e38), loss=lambda step, w: -w, steps=3, lr=4e36, every=1)
    assert stored(tmp_path)["step"] == 2 and torch.isfinite(stored(tmp_path)["module"]["w"])


def test_a_diverged_run_goes_on_from_its_checkpoint_with_a_smaller_learning_rate(tmp_path: Path) -> None:
    with pytest.raises(Diverged) as found:
        train(tmp_path, weight(), loss=lambda step, w: w / (step < 6), every=5)
    assert found.value.__notes__ == [f"{tmp_path} has a checkpoint of step 5: a resumed run goes on there."]
    assert stored(tmp_path)["step"] == 5
    before = float(stored(tmp_path)["module"]["w"])
    after = train(tmp_path, weight(), loss=lambda step, w: w, steps=6, lr=1e-6)
    assert 0 < before - after < 1e-5


@pytest.mark.parametrize("error", [TimeoutError("the judge"), InputError("no such reply"), ValueError()])
def test_a_step_that_fails_loses_no_step_before_it(tmp_path: Path, error: Exception) -> None:
    """It fails in step 9, long before the first checkpoint is due, after drawing a random number.

    The resumed run draws that number again: 20 steps come to the same bit.
    """
    torch.manual_seed(3)
    whole = train(tmp_path / "whole", weight())

    def fail(step: int) -> None:
        if step == 8:
            torch.rand(5)
            raise error

    torch.manual_seed(3)
    with pytest.raises(type(error)) as found:
        train(tmp_path / "parts", weight(), fail)
    words = "\n".join([str(found.value), *found.value.__notes__])
    assert "step 9 of 20" in words and "checkpoint of step 8" in words
    assert train(tmp_path / "parts", weight()) == whole


def test_a_setting_error_keeps_its_words(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"^tau is 7; expected less\n"):
        train(tmp_path, weight(), lambda step: (_ for _ in ()).throw(SettingError("tau", 7, "less")))


class Counter:
    """Experience that moves in every step."""

    changes = 0

    def state(self) -> int:
        return self.changes

    def load(self, state: int) -> None:
        self.changes = state


@pytest.mark.parametrize("what", ["weights", "experience"])
def test_half_a_step_is_never_saved(tmp_path: Path, what: str) -> None:
    """It fails after the weights, or the experience, have moved: the checkpoint is that of step 5."""
    experience, module = Counter(), weight()
    run = TrainingRun(tmp_path, checkpoint_every=5, quiet=True)
    learner = Learner(module, AdamW(0.1), experience=experience)
    with pytest.raises(TimeoutError), run:
        for step in run.steps(20, learner):
            experience.changes += what == "experience"
            if step == 8 and what == "experience":
                raise TimeoutError
            learner.descend(module.w.sum(), lr=0.1)
            if step == 8:
                raise TimeoutError
    assert stored(tmp_path)["step"] == 5


def test_a_run_is_not_resumed_with_fewer_steps_than_it_has_done(tmp_path: Path) -> None:
    train(tmp_path, weight(), steps=6)
    with pytest.raises(InputError, match="6 steps are done, more than 4; expected no fewer"):
        train(tmp_path, weight(), steps=4)
