"""Two processes against one: the same global batches give the same losses, weights and resumed runs."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from turnwise.algorithms.logs import bc
from turnwise.data.batch import pack_tokens, pack_turns
from turnwise.data.order import BatchOrder
from turnwise.run.distributed import World
from turnwise.run.files.checkpoint import Checkpoints

WORKER = Path(__file__).with_name("worker.py")
worker = runpy.run_path(str(WORKER))
ALGORITHMS = worker["ALGORITHMS"]
STRATEGIES = ("ddp", "fully_shard")
RESUMED = ("bc", "ilql")  # tied embeddings; target copies
SINGLE = [("ddp", name) for name in ALGORITHMS] + [("fully_shard", name) for name in RESUMED]
"""what is compared in single precision too"""
EPOCHS, STEPS = 2.0, 10
FLOAT32: dict[str, Any] = {"dtype": "float32", "epochs": 1.0}  # a whole epoch, its single-row batch included
STOP = 4  # the step, in the first epoch, that Ctrl-C comes in
SAVING = {"checkpoint_every": STEPS}  # gathering what is split takes long: it is saved where it stops
train = partial(worker["train"], epochs=EPOCHS, **SAVING)


def outcomes(plan: list[dict[str, Any]], file: Path, size: int) -> list[list[str]]:
    """Do what a plan says on several processes; what came of each job, per process."""
    for process in worker["launch"](plan, file, size):
        process.join(240)
        assert process.exitcode == 0
    return [json.loads(Path(f"{file}.{rank}").read_text()) for rank in range(size)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of runs of 10 steps: `one`, and what must equal it in float64 or float32."""
    base = tmp_path_factory.mktemp("processes")
    for name in ALGORITHMS:
        assert train(name, base / "one" / name) == "ended"
        assert train(name, base / "one32" / name, **FLOAT32) == "ended"
    plan: list[dict[str, Any]] = []
    expected: list[str] = []

    def ask(outcome: str, folder: Path, **job: Any) -> None:
        plan.append({"folder": folder, "epochs": EPOCHS, **SAVING, **job})
        expected.append(outcome)

    for strategy in STRATEGIES:
        for name in ALGORITHMS:
            job = {"algorithm": name, "strategy": strategy}
            ask("ended", base / strategy / name, **job)
            if (strategy, name) in SINGLE:
                ask("ended", base / f"{strategy}32" / name, **job, **FLOAT32)
            if name in RESUMED:
                begun_on_one = base / f"{strategy}_after_one" / name
                assert train(name, begun_on_one, stop_at=STOP) == "interrupted"
                ask("ended", begun_on_one, **job)
                ask("interrupted", base / f"one_after_{strategy}" / name, **job, stop_at=STOP)
    broken = base / "broken"
    file = broken / "checkpoints" / "step-7.safetensors"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"half a checkpoint")
    wrong = (
        f"{file}: damaged, or no checkpoint (its header has no end); expected the file as a run wrote it. "
        "Without this file a resumed run goes on from the beginning"
    )
    ask(wrong, broken, algorithm="bc")
    assert outcomes(plan, base / "plan", 2) == [expected, expected]
    for strategy in STRATEGIES:
        for name in RESUMED:
            begun = base / f"one_after_{strategy}" / name
            shutil.copytree(begun, base / f"stopped_{strategy}" / name)
            assert train(name, begun) == "ended"
    return base


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of nested dicts and lists, with where it is."""
    inside = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else None
    if inside is None:
        yield path, tree
    else:
        for key, value in inside:
            yield from leaves(value, f"{path}/{key}")


def checkpoint(folder: Path) -> dict[str, torch.Tensor]:
    """Every floating-point tensor of a checkpoint: weights, targets, moments of the optimizer."""
    found = leaves(Checkpoints(folder).latest())
    return {k: x for k, x in found if isinstance(x, torch.Tensor) and x.is_floating_point()}


def metrics(folder: Path) -> list[dict[str, float]]:
    """What was logged, but for the time that it took."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(x).items() if k != "seconds"} for x in lines]


def assert_same(one: Path, two: Path, within: float, steps: int = STEPS, weights: bool = True) -> None:
    a, b = metrics(one), metrics(two)
    assert [m["step"] for m in b] == list(range(steps))
    for x, y in zip(a, b, strict=True):
        assert y == pytest.approx(x, rel=0, abs=within)
    if weights:
        a, b = checkpoint(one), checkpoint(two)
        assert a.keys() == b.keys()
        for name in a:
            assert a[name].dtype == torch.float64 or name.endswith("/step")
            assert torch.allclose(b[name], a[name], rtol=0, atol=within), name


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", ALGORITHMS)
def test_two_processes_equal_one(runs: Path, name: str, strategy: str) -> None:
    assert_same(runs / "one" / name, runs / strategy / name, within=1e-8)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", ALGORITHMS)
def test_trained_weights_come_out_whole(runs: Path, name: str, strategy: str) -> None:
    """A module of its own on rank 0, with all that the shards hold, tied embeddings included."""
    one, two = (torch.load(runs / f"{x}/{name}.weights", weights_only=True) for x in ("one", strategy))
    assert one.keys() == two.keys()
    for key in one:
        torch.testing.assert_close(two[key], one[key], rtol=0, atol=1e-8)


@pytest.mark.parametrize(("strategy", "name"), SINGLE)
def test_losses_equal_in_float32(runs: Path, name: str, strategy: str) -> None:
    assert_same(runs / "one32" / name, runs / f"{strategy}32" / name, within=1e-4, steps=5, weights=False)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", RESUMED)
def test_a_run_begun_on_one_process_goes_on_on_two(runs: Path, name: str, strategy: str) -> None:
    assert_same(runs / "one" / name, runs / f"{strategy}_after_one" / name, within=1e-8)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", RESUMED)
def test_a_run_begun_on_two_processes_goes_on_on_one(runs: Path, name: str, strategy: str) -> None:
    """Ctrl-C reached rank 1 alone, in its fifth step: both stopped there (rank 0 would hang otherwise)."""
    stopped = Checkpoints(runs / f"stopped_{strategy}" / name).latest()
    assert stopped["step"] == STOP + 1
    assert_same(runs / "one" / name, runs / f"one_after_{strategy}" / name, within=1e-8)


def test_rank_0_alone_writes(runs: Path) -> None:
    """The other process was given folders of its own; none of them came to be."""
    assert not list(runs.rglob("*-of-rank-1*"))
    for folder in (runs / "ddp" / "bc", runs / "fully_shard" / "ilql"):
        assert sorted(f.name for f in folder.iterdir()) == ["checkpoints", "metrics.jsonl"]


def test_training_moves_what_is_compared(runs: Path) -> None:
    """Agreement on what stands still would prove nothing.

    Heads start with last layers of zero. Adam moves a weight by about the learning rate a step: over 10
    steps, 4 of them of warmup and then falling from 3e-3 to 1.5e-4, the rates add up to 0.016. Targets that
    follow at 0.05 a step are well behind.
    """
    trained = checkpoint(runs / "one" / "ilql")
    for head in ("q.0", "q.1", "v"):
        moved = trained[f"/module/{head}.out.weight"].abs().max()
        followed = trained[f"/target/{head}.out.weight"].abs().max()
        assert 0.0015 < moved < 0.03
        assert 0.00015 < followed < 0.8 * moved


def test_shares_of_a_batch_weigh_differently() -> None:
    """Means per process would be wrong on these rows: the two shares of a batch differ in decisions.

    One batch in five has a single row: the second process has none of its own and counts nothing.
    """
    rows = worker["conversations"](25, 5)
    order = BatchOrder([len(t) for t in rows], 6, seed=11)
    for step in range(order.batches_per_epoch):
        batch = [rows[i] for i in order.rows(step)]
        shares = [World(rank, 2).share(batch) for rank in (0, 1)]
        counts = [int(pack_tokens(x, gamma=1.0).loss_mask.sum()) for x in shares]
        assert counts[0] != counts[1]
        assert sum(counts) == int(pack_tokens(batch, gamma=1.0).loss_mask.sum())
        assert (counts[1] == 0) == (len(batch) == 1)


def test_means_are_per_decision() -> None:
    """Losses of 2 and 4 over 4 decisions are 0.5 and 1; without a decision there is nothing to say."""
    sums = {"a": torch.tensor(2.0), "b": torch.tensor(4.0), "decisions": torch.tensor(4)}
    assert World().means(sums) == {"a": 0.5, "b": 1.0}
    assert World().means({"a": torch.tensor(0.0), "decisions": torch.tensor(0)}) == {}


def test_every_row_is_some_process_s() -> None:
    """Seven rows among three; one row among three, where two read a little of it and learn nothing."""
    rows = worker["conversations"](7, 5)
    ids = [[row.id for row in World(rank, 3).share(rows)] for rank in range(3)]
    assert ids == [["0", "3", "6"], ["1", "4"], ["2", "5"]]
    for rank in (1, 2):
        (idle,) = World(rank, 3).share(rows[:1])
        for batch in (pack_tokens([idle], gamma=1.0), pack_turns([idle], gamma=1.0)):
            assert batch.mask.any()
            assert not batch.loss_mask.any()
            assert not bc.partner_tokens(batch).any()


def test_processes_that_find_different_data_all_refuse(tmp_path: Path) -> None:
    plan = [{"found": ["9 rows, 1f", "9 rows, 1f"]}, {"found": ["9 rows, 1f", "8 rows, 2e"]}]
    told = (
        "process 0 has 9 rows, 1f, and process 1 has 8 rows, 2e; expected data that all processes find alike "
        "(a folder that every machine sees, or equal copies of it)"
    )
    assert outcomes(plan, tmp_path / "plan", 2) == [["the same", told]] * 2
    World().expect_same("data", "anything")


def test_ctrl_c_in_another_process(tmp_path: Path) -> None:
    """A real SIGINT to a training process, whenever it comes; resumed here, in a fresh process."""
    folder = tmp_path / "parts"
    began = time.monotonic()
    (process,) = worker["launch"](
        [{"algorithm": "ilql", "folder": folder, "epochs": 100.0}], tmp_path / "plan", 1
    )
    while not (folder / "metrics.jsonl").exists() or len(metrics(folder)) < 5:
        assert process.is_alive() and time.monotonic() - began < 120
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    assert process.exitcode == 0
    assert json.loads((tmp_path / "plan.0").read_text()) == ["interrupted"]
    stopped = Checkpoints(folder).latest()["step"]
    assert 5 <= stopped < 500
    epochs = (stopped // 5) + 2.0
    # The schedule of the learning rate depends on the number of steps: both runs are told the same 500.
    alone = partial(worker["train"], "ilql", epochs=100.0)
    assert alone(folder, stop_at=int(5 * epochs) - stopped) == "interrupted"
    assert alone(tmp_path / "whole", stop_at=int(5 * epochs)) == "interrupted"
    assert [m["step"] for m in metrics(folder)] == list(range(int(5 * epochs) + 1))
    # Not to the bit: another process lays its arrays out otherwise in memory, and sums in another order.
    for found, expected in zip(metrics(folder), metrics(tmp_path / "whole"), strict=True):
        assert found == pytest.approx(expected, rel=1e-10, abs=1e-12)
    torch.testing.assert_close(checkpoint(folder), checkpoint(tmp_path / "whole"), rtol=0, atol=1e-12)
