"""Two processes against one where policies learn from feedback and from their own replies.

Runs of 10 steps in float64, with batches that two processes cannot share evenly, prompts of which the reward
has no opinion, and a batch of a single pair.
"""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

from turnwise.run.distributed import World
from turnwise.run.files.checkpoint import Checkpoints

HERE = Path(__file__).parent
worker, speakers = (runpy.run_path(str(HERE / f"{name}.py")) for name in ("worker", "speakers"))
ALGORITHMS = speakers["ALGORITHMS"]
T5 = ("dpo", "rloo")
SPLIT_FIRST, SPLIT_LAST = ALGORITHMS[::2], ALGORITHMS[1::2]  # which of the steps a split model takes
RESUMED = ("dpo", "grpo")  # grpo moves the weight of its KL, which is part of a checkpoint
ALONE = World()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of runs: `one` process, and what must equal it."""
    base = tmp_path_factory.mktemp("speakers")
    train = speakers["train"]
    plan: list[dict[str, Any]] = []
    expected: list[str] = []

    def ask(outcome: str, folder: Path, **job: Any) -> None:
        plan.append({"script": str(HERE / "speakers.py"), "folder": str(folder), **job})
        expected.append(outcome)

    for name in ALGORITHMS:
        assert train(name, base / "one" / name, ALONE) == "ended"
        ask("ended", base / "ddp" / name, algorithm=name)
    for name in T5:
        assert train(name, base / "one-t5" / name, ALONE, kind="t5") == "ended"
        ask("ended", base / "ddp-t5" / name, algorithm=name, kind="t5")
    assert train("dpo", base / "one-lora" / "dpo", ALONE, lora=2) == "ended"
    ask("ended", base / "ddp-lora" / "dpo", algorithm="dpo", lora=2)
    ask("ended", base / "ddp-micro" / "dpo", algorithm="dpo", micro=1)
    for name in SPLIT_FIRST:  # few steps, since splitting takes long; the others are taken on one process
        ask("interrupted", base / "split" / name, algorithm=name, strategy="fully_shard", stop_at=3)
    for name in SPLIT_LAST:
        assert train(name, base / "split" / name, ALONE, stop_at=5) == "interrupted"
        ask("ended", base / "split" / name, algorithm=name, strategy="fully_shard")
    for name in RESUMED:
        assert train(name, base / "resumed" / name, ALONE, stop_at=2) == "interrupted"
        ask("interrupted", base / "resumed" / name, algorithm=name, stop_at=5)
    for process in worker["launch"](plan, base / "plan", 2):
        process.join(240)
        assert process.exitcode == 0
    assert [json.loads((base / f"plan.{rank}").read_text()) for rank in range(2)] == [expected, expected]
    for name in SPLIT_FIRST:
        assert Checkpoints(base / "split" / name).latest()["step"] == 4
        assert train(name, base / "split" / name, ALONE) == "ended"
    for name in RESUMED:
        assert Checkpoints(base / "resumed" / name).latest()["step"] == 6
        assert train(name, base / "resumed" / name, ALONE) == "ended"
    return base


def assert_same(one: Path, two: Path) -> None:
    """Every logged number at every step, and every weight at the end, to 1e-8."""
    lines = [
        [{k: v for k, v in json.loads(x).items() if k != "seconds"} for x in text.splitlines()]
        for text in ((folder / "metrics.jsonl").read_text() for folder in (one, two))
    ]
    assert len(lines[0]) == len(lines[1]) == 10
    for of_run in lines:
        # Before the first update the policy is its reference: log-ratios are 0 but for rounding, and which of
        # two is larger is not to be compared.
        of_run[0].pop("rewards/accuracies", None)
    for x, y in zip(*lines, strict=True):
        assert y == pytest.approx(x, rel=0, abs=1e-8)
    a, b = (torch.load(f"{folder}.weights", weights_only=True) for folder in (one, two))
    assert a.keys() == b.keys()
    for key in a:
        torch.testing.assert_close(b[key], a[key], rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_two_processes_equal_one(runs: Path, name: str) -> None:
    assert_same(runs / "one" / name, runs / "ddp" / name)


@pytest.mark.parametrize("name", T5)
def test_of_encoder_decoders_too(runs: Path, name: str) -> None:
    assert_same(runs / "one-t5" / name, runs / "ddp-t5" / name)


def test_of_adapters_and_of_batches_in_parts_too(runs: Path) -> None:
    assert_same(runs / "one-lora" / "dpo", runs / "ddp-lora" / "dpo")
    assert_same(runs / "one" / "dpo", runs / "ddp-micro" / "dpo")


@pytest.mark.parametrize("name", ALGORITHMS)
def test_of_models_that_are_split_too(runs: Path, name: str) -> None:
    """Split over two processes for a part of the steps, whole in one for the rest."""
    assert_same(runs / "one" / name, runs / "split" / name)


@pytest.mark.parametrize("name", RESUMED)
def test_a_run_goes_from_one_process_to_two_and_back(runs: Path, name: str) -> None:
    assert_same(runs / "one" / name, runs / "resumed" / name)


def test_weights_move(runs: Path) -> None:
    """Agreement on what stands still would prove nothing: more than a learning rate of Adam a step or two."""
    for name in ALGORITHMS:
        before = Checkpoints(runs / "one" / name).latest()
        assert before["step"] == 10
        weights = torch.load(f"{runs / 'one' / name}.weights", weights_only=True)
        fresh = speakers["fresh"](name).state_dict()
        assert max(float((weights[k] - fresh[k]).abs().max()) for k in fresh) > 3e-3


def test_shares_and_answers() -> None:
    """One process has its own answer, and its own error; shares of a batch by hand."""
    assert ALONE.gather(lambda: 3) == [3]
    with pytest.raises(ZeroDivisionError):
        ALONE.gather(lambda: 1 // 0)
    assert World(1, 3).own([5, 6, 7, 8]) == ([6], True) and World(2, 3).own([5]) == ([5], False)
