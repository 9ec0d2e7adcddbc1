"""Lanes in several processes: the same numbers, failures with their place, and nobody left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import turnwise as tw
from turnwise.envs.gymnasium import workers
from turnwise.envs.gymnasium.lanes import GymnasiumLanes, one_by_one
from turnwise.envs.gymnasium.workers import EnvironmentFailed, Workers
from turnwise.run.settings import Adam


class Walk(gymnasium.Env):
    """A random walk in a Dict, which ends or is cut by chance; what goes wrong goes wrong in a step."""

    def __init__(self, fails: str = "", step: int = 3) -> None:
        self.observation_space = spaces.Dict(
            {"at": spaces.Box(-np.inf, np.inf, (2,), np.float32), "mark": spaces.Discrete(3)}
        )
        self.action_space, self.fails, self.fatal = spaces.Discrete(3, start=1), fails, step
        if fails == "made":
            raise ImportError("no module named walking")

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.at, self.time = np.zeros(2, np.float32), 0
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.time += 1
        if self.time == self.fatal and self.fails:
            {"raise": self._raise, "exit": lambda: os._exit(7), "nan": lambda: None}[self.fails]()
        self.at = self.at + self.np_random.normal(size=2).astype(np.float32) * int(action)
        over, cut = self.np_random.random(2) < (0.1, 0.1)
        reward = float("nan") if self.fails == "nan" and self.time == self.fatal else float(self.at[0])
        return self._seen(), reward, bool(over), bool(cut), {}

    def _raise(self) -> None:
        raise KeyError("a door")

    def _seen(self) -> dict[str, Any]:
        return {"at": self.at, "mark": np.int64(self.np_random.integers(3))}


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"


def gone(pids: list[int], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while any(alive(p) for p in pids) and time.monotonic() < end:
        time.sleep(0.02)
    return not any(alive(p) for p in pids)


def history(lanes: GymnasiumLanes, steps: int) -> list[Any]:
    """What happens under actions that are the same for all."""
    found: list[Any] = [lanes.reset(np.random.default_rng(3), 5)]
    for t in range(steps):
        step = lanes.step((np.arange(5) + t) % 3)
        ended = step.terminated | step.truncated
        found += [*step, lanes.reset_lanes(ended) if ended.any() else ended]
    return found


def same(a: list[Any], b: list[Any]) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_any_number_of_processes_plays_the_same_episodes() -> None:
    """Five lanes in one process, in two groups of three and two, and each in its own."""
    alone = history(GymnasiumLanes(one_by_one(Walk, 5)), 30)
    for n in (2, 9):
        lanes = GymnasiumLanes(one_by_one(Walk, 5, workers=n))
        assert isinstance(lanes.envs, Workers) and len(lanes.envs.processes) == min(n, 5)
        pids = lanes.envs.processes
        assert same(alone, history(lanes, 30))
        lanes.close()
        assert gone(pids) and lanes.envs.processes == []
        assert same(alone[:1], history(lanes, 0))  # a reset starts new ones
        lanes.close()


def test_lanes_go_on_in_another_number_of_processes() -> None:
    """Where lanes stand is said in seeds and actions, whoever steps them."""
    one, two, three = (GymnasiumLanes(one_by_one(Walk, 5, workers=n)) for n in (1, 2, 3))
    history(two, 12)
    for other in (one, three):
        other.load(two.state(), np.random.default_rng(8))
    two._rng = np.random.default_rng(8)
    for t in range(20):
        over = two._under_way().copy()
        if over.any():
            first = two.reset_lanes(over)
            assert all(np.array_equal(first, x.reset_lanes(over)) for x in (one, three))
        steps = [list(x.step(np.full(5, t % 3))) for x in (two, one, three)]
        assert same(steps[0], steps[1]) and same(steps[0], steps[2])
    for lanes in (two, three):
        lanes.close()


def test_a_run_comes_to_the_same_weights(tmp_path: Path) -> None:
    config = tw.A2C(steps=96, lanes=4, rollout=8, optimizer=Adam(1e-2))
    given: dict[str, Any] = {"width": 8, "quiet": True}
    one = tw.fit(config, Walk, out=tmp_path / "one", **given)
    two = tw.fit(config, Walk, out=tmp_path / "two", workers=2, **given)
    for name, x in one.saved.module.state_dict().items():
        assert np.array_equal(x.numpy(), two.saved.module.state_dict()[name].numpy())
    assert "\nworkers" not in (tmp_path / "two" / "config.yaml").read_text()
    means = [tw.evaluate(one, Walk, episodes=6, lanes=3, workers=n, quiet=True).mean for n in (1, 3)]
    assert means[0] == means[1]


@pytest.mark.parametrize(
    ("fails", "kind", "says"),
    [
        (
            "raise",
            EnvironmentFailed,
            "the environment failed in step 3 of an episode (lane 4): KeyError: 'a door'",
        ),
        (
            "exit",
            EnvironmentFailed,
            "the process of the environment ended with exit code 7, in step 3 of an episode (lane 4)",
        ),
        (
            "nan",
            tw.InputError,
            "the environment's reward is nan, in step 3 of an episode (lane 4); expected a",
        ),
        ("made", ImportError, "no module named walking"),
    ],
)
def test_what_fails_is_named_with_lane_and_step(fails: str, kind: Any, says: str) -> None:
    def make(lane: int) -> gymnasium.Env:
        from turnwise.envs.gymnasium.checked import Checked

        return Checked(Walk(fails if lane == 4 else ""), lane)

    envs = None
    with pytest.raises(kind) as caught:
        envs = Workers(make, 6, 2)
        envs.reset(seed=11)
        for _ in range(3):
            envs.step(np.ones(6, np.int64))
    assert says in str(caught.value)
    assert envs is None or envs.processes == []
    if fails == "raise":
        assert "self._raise()" not in says and "in step" in "".join(caught.value.__notes__)


def test_a_process_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "PATIENCE", 0.1)

    class Stuck(Walk):
        def close(self) -> None:
            time.sleep(60)

    envs = Workers(lambda lane: Stuck(), 2, 2)
    pids = envs.processes
    envs.close()
    assert gone(pids, 1.0)


SCRIPT = """
import sys, time
import numpy as np
from turnwise.envs.gymnasium.workers import Workers
sys.path.insert(0, {folder!r})
from test_workers_env import Slow
envs = Workers(lambda lane: Slow(), 4, 2)
envs.reset(seed=0)
print(*envs.processes, flush=True)
while True:
    envs.step(np.zeros(4, np.int64))
"""
SLOW = """
import time
import gymnasium
import numpy as np

class Slow(gymnasium.Env):
    observation_space = gymnasium.spaces.Discrete(2)
    action_space = gymnasium.spaces.Discrete(2)
    def reset(self, *, seed=None, options=None):
        return np.int64(0), {}
    def step(self, action):
        time.sleep(0.01)
        return np.int64(0), 0.0, False, False, {}
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_the_first(how: signal.Signals, tmp_path: Path) -> None:
    """Ctrl-C reaches all of them, as in a terminal; a kill the first alone, which can tell nobody."""
    (tmp_path / "test_workers_env.py").write_text(SLOW)
    script = SCRIPT.format(folder=str(tmp_path))
    first = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    assert first.stdout is not None
    pids = [int(word) for word in first.stdout.readline().split()]
    assert len(pids) == 2 and all(map(alive, pids))
    if how is signal.SIGINT:
        os.killpg(first.pid, how)
    else:
        first.send_signal(how)
    _, err = first.communicate(timeout=30)
    assert gone(pids)
    assert (b"KeyboardInterrupt" in err) == (how is signal.SIGINT) and b"Exception ignored" not in err


def test_what_steps_all_lanes_at_once_takes_no_workers() -> None:
    for env in ("tiger", "CartPole-v1", "repeat-previous"):
        with pytest.raises(tw.SettingError, match=f"workers is 2; expected 1: {env} steps all lanes at once"):
            tw.fit(tw.PPO(steps=64), env, workers=2, quiet=True)
    with pytest.raises(tw.SettingError, match="workers is 0; expected 1 or more"):
        tw.fit(tw.PPO(steps=64), Walk, workers=0, quiet=True)
