"""Shards as tasks of a real Ray on this machine: the same numbers, and nothing lost with a worker."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import turnwise as tw
from turnwise.cli import main
from turnwise.run.errors import InputError, SettingError
from turnwise.run.shards.here import Here, shard_seed

INSTALLED = importlib.util.find_spec("ray") is not None
on_a_real_ray = pytest.mark.skipif(
    not INSTALLED, reason="the package ray is not installed (pip install 'turnwise[ray]'): nothing ran on it"
)


def draws(shared: np.ndarray, part: int) -> np.ndarray:
    return shared + np.random.default_rng(shard_seed(1, part)).random(3)


def dies_once(shared: str, part: int) -> tuple[int, int]:
    """The worker of shard 2 is killed in the middle of its work, the first time."""
    mark = Path(shared) / f"begun-{part}"
    again = mark.exists()
    mark.touch()
    if part == 2 and not again:
        os.kill(os.getpid(), signal.SIGKILL)
    return part, int(again)


def always_dies(shared: None, part: int) -> int:
    if part == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return part


def refuses(shared: None, part: int) -> int:
    if part == 1:
        raise SettingError("tau", 7.0, "a number between 0 and 1")
    return part


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """A cluster of two workers on this machine, which `on_ray` finds and leaves as it was."""
    pytest.importorskip("ray")
    import ray

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Tasks are functions of this file, which no worker can import: they are sent whole.
    import sys

    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    yield ray
    ray.shutdown()


@on_a_real_ray
@pytest.mark.filterwarnings("ignore")
def test_the_same_with_any_number_of_workers(ray: Any) -> None:
    """One at a time (2 CPUs a shard), two at a time, and without Ray: equal to the bit."""
    from turnwise.run.shards.on_ray import RayWorkers, on_ray

    shared, parts = np.arange(3.0), list(range(5))
    expected = Here().each(draws, shared, parts)
    heard: list[int] = []
    for workers in (RayWorkers(ray, cpus=2), RayWorkers(ray)):
        found = workers.each(draws, shared, parts, heard.append)
        assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    assert sorted(heard) == sorted(parts * 2)
    with on_ray("auto") as workers:
        assert np.array_equal(workers.each(draws, shared, [3])[0], expected[3])
    assert ray.is_initialized()


@on_a_real_ray
@pytest.mark.filterwarnings("ignore")
def test_lost_workers_are_replaced(ray: Any, tmp_path: Path) -> None:
    from turnwise.run.shards.on_ray import RayWorkers

    found = RayWorkers(ray).each(dies_once, str(tmp_path), list(range(4)))
    assert [part for part, _ in found] == [0, 1, 2, 3]
    assert found[2] == (2, 1)  # done again, by another process
    with pytest.raises(InputError, match="the worker of shard 1 of 2 was lost 4 times"):
        RayWorkers(ray).each(always_dies, None, [0, 1])


@on_a_real_ray
@pytest.mark.filterwarnings("ignore")
def test_errors_come_as_they_are(ray: Any) -> None:
    from turnwise.run.shards.on_ray import RayWorkers, on_ray

    with pytest.raises(SettingError) as e:
        RayWorkers(ray).each(refuses, None, [0, 1, 2])
    assert str(e.value) == "tau is 7.0; expected a number between 0 and 1"
    with pytest.raises(SettingError, match="ray_cpus is 64; expected 2 at most"), on_ray("auto", cpus=64):
        pass


@on_a_real_ray
@pytest.mark.filterwarnings("ignore")
def test_doors_give_what_this_process_gives(ray: Any, tmp_path: Path) -> None:
    """Episodes, a sweep, conversations, and a policy that learns from replies which workers sampled."""
    config = tw.PPO(steps=64, lanes=4)
    agent = tw.fit(config, "repeat-previous", horizon=10, quiet=True)
    small: dict[str, Any] = {"episodes": 12, "shards": 3, "quiet": True}
    here, there = (tw.evaluate(agent, "repeat-previous", **small, **x) for x in ({}, {"ray": "auto"}))
    assert (here.mean, here.low) == (there.mean, there.low)

    both: dict[str, Any] = {"seeds": (0, 1), "horizon": 10, "quiet": True}
    rows = [
        tw.sweep(config, "repeat-previous", out=tmp_path / str(x), ray=x, **both)["rows"][0]
        for x in (None, "auto")
    ]
    assert [run["numbers"] for run in rows[0]["runs"]] == [run["numbers"] for run in rows[1]["runs"]]

    logs = tmp_path / "cards.jsonl"
    assert main(["data", "make", "--task", "postcards", "--conversations", "40", "--out", str(logs)]) == 0
    size: dict[str, Any] = {"width": 16, "layers": 1, "heads": 2, "context": 128, "vocab": 300}
    clone = tw.fit(tw.BC(epochs=0.2, batch_size=8), str(logs), out=tmp_path / "bc", quiet=True, **size)
    here, there = (tw.evaluate(clone, **small, **x) for x in ({}, {"ray": "auto"}))
    assert here.mean == there.mean and here.result["turns"] == there.result["turns"]

    rloo = tw.RLOO(steps=3, prompts_per_step=5, group=2)
    judged: dict[str, Any] = {"policy": tmp_path / "bc", "reward": "postcards", "max_new_tokens": 6}
    found = []
    for name, address in (("here", None), ("there", "auto")):
        out = tmp_path / name
        more: dict[str, Any] = {"out": out, "log_every": 1, "quiet": True, "shards": 3, "ray": address}
        tw.fit(rloo, "postcards", evaluation_prompts=2, **judged, **more)
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        found.append([{k: v for k, v in line.items() if k != "seconds"} for line in lines])
    assert len(found[0]) == 3 and found[0] == found[1]


@on_a_real_ray
def test_nobody_answers() -> None:
    from turnwise.run.shards.on_ray import _connect

    for address in ("127.0.0.1:9", "ray://127.0.0.1:9"):
        with pytest.raises(SettingError, match="no cluster answers there"):
            _connect(None, address)


@pytest.mark.skipif(INSTALLED, reason="ray is installed")
def test_a_package_that_is_missing_is_named(tmp_path: Path, capsys: Any) -> None:
    from turnwise.run.shards.on_ray import on_ray

    with pytest.raises(SettingError, match=r"pip install 'turnwise\[ray\]'"), on_ray("auto"):
        pass
    args = [
        "train",
        "rloo",
        "--prompts",
        "postcards",
        "--reward",
        "postcards",
        "--policy",
        str(tmp_path / "x"),
    ]
    assert main([*args, "--out", str(tmp_path / "run"), "--ray", "auto"]) == 2
    assert not (tmp_path / "run").exists()
