"""An interrupted run and its resumption give, bit for bit, what an uninterrupted run gives."""

from __future__ import annotations

import contextlib
import json
import os
import runpy
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from turnwise.algorithms.logs import awr, bc, ilql, mc, turn_iql
from turnwise.run.errors import Diverged, Interrupted
from turnwise.run.files.checkpoint import Checkpoints
from turnwise.run.learner import Learner
from turnwise.run.metrics import COMMON
from turnwise.run.settings import AdamW
from turnwise.run.training import TrainingRun

WORKER = Path(__file__).parents[1] / "distributed" / "worker.py"
worker = runpy.run_path(str(WORKER))
STEPS = 12
LOGS: dict[str, Any] = {"bc": bc, "mc": mc, "ilql": ilql, "turn_iql": turn_iql, "awr": awr}
train = partial(worker["train"], epochs=2.4)


def checkpoint(folder: Path) -> dict[str, Any]:
    return Checkpoints(folder).latest()


def metrics(folder: Path) -> list[dict[str, float]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(x).items() if k != "seconds"} for x in lines]


def assert_identical(a: Any, b: Any, where: str = "") -> None:
    """Equal to the last bit, through nested dicts and lists; the time that a run took may differ."""
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a.keys() - {"seconds"}:
            assert_identical(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_identical(x, y, f"{where}/{i}")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    else:
        assert a == b, where


def assert_same_run(whole: Path, resumed: Path, steps: int = STEPS) -> None:
    assert [m["step"] for m in metrics(resumed)] == list(range(steps))  # none missing, none twice
    assert metrics(resumed) == metrics(whole)
    assert_identical(checkpoint(resumed), checkpoint(whole))
    assert sorted(f.name for f in resumed.iterdir()) == ["checkpoints", "metrics.jsonl"]


@pytest.mark.parametrize("name", worker["ALGORITHMS"])
def test_stopped_and_resumed_equals_whole(name: str, tmp_path: Path) -> None:
    """Stopped in its tenth step of 12: inside the second epoch, and off the checkpoint at 7.

    In single precision, as people train; the tests below run in double.
    """
    assert train(name, tmp_path / "whole", dtype="float32") == "ended"
    assert train(name, tmp_path / "parts", dtype="float32", stop_at=9) == "interrupted"
    assert checkpoint(tmp_path / "parts")["step"] == 10
    assert train(name, tmp_path / "parts", dtype="float32") == "ended"
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    logged = {key.removeprefix("heldout/") for line in metrics(tmp_path / "whole") for key in line}
    assert logged | {"seconds"} == LOGS[name].METRICS.keys() | COMMON.keys()


def test_targets_are_stored(tmp_path: Path) -> None:
    """What was read back in the test above includes copies that differ from what they follow."""
    for name in ("ilql", "turn_iql"):
        train(name, tmp_path / name)
        state = checkpoint(tmp_path / name)
        assert state["module"].keys() == state["target"].keys()
        assert not torch.equal(state["module"]["v.out.weight"], state["target"]["v.out.weight"])


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft's
def test_adapters_resume(tmp_path: Path) -> None:
    """With low-rank adapters most weights are frozen and have no optimizer state."""
    train("ilql", tmp_path / "whole", lora=2)
    assert train("ilql", tmp_path / "parts", lora=2, stop_at=4) == "interrupted"
    assert train("ilql", tmp_path / "parts", lora=2) == "ended"
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_stopped_in_the_last_step(tmp_path: Path) -> None:
    """All is done and saved; it still stops, and resuming finds nothing left to do."""
    train("bc", tmp_path / "whole")
    assert train("bc", tmp_path / "parts", stop_at=11) == "interrupted"
    assert train("bc", tmp_path / "parts") == "ended"
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_second_ctrl_c_stops_at_once(tmp_path: Path) -> None:
    """Pressed twice in one step: no checkpoint of it; that of step 7 is whole, later metrics are redone."""
    train("mc", tmp_path / "whole")
    press = worker["interrupt_at"]
    module, trunk = worker["model"]("mc")
    press(trunk, 10)
    press(trunk, 10)
    run = TrainingRun(tmp_path / "parts", log_every=1, checkpoint_every=7, quiet=True)
    rows, heldout = worker["conversations"](25, 5), worker["conversations"](7, 6)
    with pytest.raises(KeyboardInterrupt):
        mc.train(worker["config"]("mc", 2.4), rows, heldout, module.double(), run, 11)
    assert checkpoint(tmp_path / "parts")["step"] == 7
    assert metrics(tmp_path / "parts")[-1]["step"] == 9
    assert train("mc", tmp_path / "parts") == "ended"
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_a_torn_last_line_is_dropped(tmp_path: Path) -> None:
    """A process killed while it logged leaves half a line, of a step after the last checkpoint."""
    train("bc", tmp_path / "whole")
    train("bc", tmp_path / "parts", stop_at=9)
    with (tmp_path / "parts" / "metrics.jsonl").open("a") as f:
        f.write('{"step": 10, "sec')
    assert train("bc", tmp_path / "parts") == "ended"
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_metrics_without_a_checkpoint_are_of_no_run(tmp_path: Path) -> None:
    """Killed before the first checkpoint: everything is done again, and logged once."""
    train("bc", tmp_path / "whole")
    train("bc", tmp_path / "parts", stop_at=3)
    for file in (tmp_path / "parts" / "checkpoints").iterdir():
        file.unlink()
    assert train("bc", tmp_path / "parts") == "ended"
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_a_checkpoint_that_is_none_is_named(tmp_path: Path) -> None:
    file = tmp_path / "checkpoints" / "step-7.safetensors"
    file.parent.mkdir()
    file.write_bytes(b"half a checkpoint")
    assert train("bc", tmp_path) == (
        f"{file}: damaged, or no checkpoint (its header has no end); expected the file as a run wrote it. "
        "Without this file a resumed run goes on from the beginning"
    )


def test_divergence_is_named_and_not_logged(tmp_path: Path) -> None:
    run = TrainingRun(tmp_path, quiet=True)
    run.log(0, {"loss": 1.5})
    with pytest.raises(Diverged, match=r"td is nan; expected a smaller lr"):
        run.log(1, {"loss": 1.0, "td": torch.tensor(float("nan"))})
    assert metrics(tmp_path) == [{"step": 0, "loss": 1.5}]


def test_gradient_norms_are_those_before_clipping(tmp_path: Path) -> None:
    """The gradient of 3 w_0 + 4 w_1 is (3, 4), of norm 5; that of w_1 has norm 1: on average 3 in step 0.

    Clipped to 1 they are (.6, .8) and (0, 1): at a learning rate of .1 the weights move by -.06 and -.18. In
    step 1 nothing is learnt, so neither number is logged; step 2 is of its own gradient alone, norm 2.
    """
    weights = nn.Module()
    weights.w = nn.Parameter(torch.zeros(2))
    learner = Learner(weights, AdamW(lr=7.0))
    learner.optimizer = torch.optim.SGD(weights.parameters(), lr=9.0)  # its step is the gradient itself
    run = TrainingRun(tmp_path, log_every=1, quiet=True)
    for step in run.steps(3, learner):
        for gradient in {0: [(3.0, 4.0), (0.0, 1.0)], 1: [], 2: [(2.0, 0.0)]}[step]:
            learner.descend((weights.w * torch.tensor(gradient)).sum(), lr=0.1 / (step + 1))
        if step == 0:
            torch.testing.assert_close(weights.w.detach(), torch.tensor([-0.06, -0.18]))
        run.log(step, {"loss": 0.0})
    first, second, third = ({k: x[k] for k in ("grad_norm", "lr") if k in x} for x in metrics(tmp_path))
    assert first == {"grad_norm": 3.0, "lr": 0.1} and second == {}
    assert third == {"grad_norm": 2.0, "lr": pytest.approx(0.1 / 3)}


def test_heldout_means_are_over_all_batches(tmp_path: Path) -> None:
    """Batches of 1 and 3 decisions with sums 2 and 4: (2 + 4) / 4, not the mean of means (2 + 4/3) / 2."""
    run = TrainingRun(tmp_path, log_every=2, quiet=True)
    sums = [{"loss": torch.tensor(s), "decisions": torch.tensor(n)} for s, n in ((2.0, 1), (4.0, 3))]
    layer = nn.Linear(1, 1)
    learner = Learner(layer, AdamW(0.1))
    seen = {step: run.heldout(step, lambda: sums) for step in run.steps(40, learner)}
    assert [step for step, means in seen.items() if means] == [19, 39]
    assert seen[19] == seen[39] == {"heldout/loss": 1.5}
    assert run.heldout(39, list) == {}


def test_random_numbers_of_training_go_on(tmp_path: Path) -> None:
    """What dropout would draw after a resumption is what it would have drawn without the interruption."""

    def draws(folder: Path, seed: int, stop: int | None = None) -> list[float]:
        torch.manual_seed(seed)
        layer, drawn = nn.Linear(1, 1), []
        learner = Learner(layer, AdamW(0.1))
        with contextlib.suppress(Interrupted):
            for step in TrainingRun(folder, quiet=True).steps(9, learner):
                drawn.append(float(torch.rand(())))
                learner.descend(layer(torch.ones(1, 1)).sum(), lr=0.1)
                if step == stop:
                    os.kill(os.getpid(), signal.SIGINT)
        return drawn

    whole = draws(tmp_path / "whole", seed=1)
    assert draws(tmp_path / "parts", seed=1, stop=3) + draws(tmp_path / "parts", seed=2) == whole
    assert len(set(whole)) == 9
