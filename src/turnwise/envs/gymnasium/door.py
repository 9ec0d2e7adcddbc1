"""Our environments as Gymnasium environments, one episode at a time or N lanes at once.

    register_environments()
    env = gymnasium.make("turnwise/Tiger-v0", horizon=20)
    env = gymnasium.make("turnwise/RepeatPrevious-v0", k=8)
    envs = gymnasium.make_vec("turnwise/POMDP-v0", num_envs=4096, problem=read_pomdp("my.pomdp"))
    envs = VectorLanes(my_lane_env, num_envs=64)

Gymnasium shows an observation at reset; a POMDP as written shows none before the first action. So:

- If the observations of a POMDP depend on the reached state alone, the reset shows o_0 ~ O(.|s_0)
  (`POMDP.showing_initial`). The agent then sees more than in the problem as written, and optimal values
  differ (T-maze with five steps, discount .9: 2.126 in place of 1.913).
- If they depend on the action (Tiger), or with `show_initial=False`, the problem's own timing holds. If it
shows
  nothing first, the space of observations has one more symbol, O. It means "nothing seen yet", and is seen at
  resets only.

`info["state"]` is the hidden state, if the environment shows it: privileged information, for critics and for
measuring, not for the agent.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from turnwise.envs.pomdp import POMDP
from turnwise.envs.protocol import Discrete, LaneEnv, MultiDiscrete, Space, Vector, no_actions
from turnwise.envs.tabular import TabularEnv

NAMESPACE = "turnwise"

SPELLINGS = {"cartpole-hidden": "CartPole-hidden", "pendulum-hidden": "Pendulum-hidden"}
"""names whose ids keep the capitals of Gymnasium's own ids"""


def lanes_of(problem: POMDP | str, horizon: int | None, show_initial: bool) -> TabularEnv:
    """Lanes of a problem, or of the classic of that name, in Gymnasium's timing if that is possible."""
    table = classic(problem) if isinstance(problem, str) else problem
    if show_initial:
        with suppress(ValueError):  # what is seen depends on the action
            table = table.showing_initial()
    return TabularEnv(table, horizon)


def classic(name: str) -> POMDP:
    """The classic problem of that name."""
    from turnwise.envs.problems.classics import CLASSICS

    if name not in CLASSICS:
        raise ValueError(f"no problem is called {name!r}; expected one of {', '.join(CLASSICS)}")
    return CLASSICS[name]()


def tasks() -> dict[str, Callable[..., LaneEnv]]:
    """The environments that are not tables, by name. Each takes `horizon` and numbers of its own."""
    from turnwise.envs.problems.hidden_velocity import HIDDEN_VELOCITY
    from turnwise.envs.problems.long_t_maze import LongTMaze
    from turnwise.envs.problems.memory_tasks import MEMORY_TASKS

    return {**MEMORY_TASKS, "long-t-maze": LongTMaze, **HIDDEN_VELOCITY}


def gymnasium_space(space: Space) -> spaces.Discrete | spaces.MultiDiscrete | spaces.Box:
    """The same space in Gymnasium's words."""
    if isinstance(space, Discrete):
        return spaces.Discrete(space.n)
    if isinstance(space, MultiDiscrete):
        return spaces.MultiDiscrete(list(space.sizes))
    low, high = (x.astype(np.float32) for x in space.bounds)
    return spaces.Box(low, high, (space.size,), np.float32)


class SingleLane(gymnasium.Env[Any, Any]):
    """One lane of any environment of ours; rewards are undiscounted.

    ValueError for a step after the end of an episode, or before the first reset.
    """

    def __init__(self, lanes: LaneEnv, render_mode: str | None = None) -> None:
        if render_mode is not None:
            raise ValueError(f"render_mode is {render_mode!r}; there are no pictures, expected None")
        _expect_reset_lanes(lanes)
        self.lanes, self.render_mode = lanes, None
        self.observation_space = gymnasium_space(lanes.observation_space)
        self.action_space = gymnasium_space(lanes.action_space)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode. There are no `options`."""
        super().reset(seed=seed)
        observations = self.lanes.reset(self.np_random, 1)
        return observations[0], self._info()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Observation, reward, terminated, truncated, info: {"state": s'} if the environment shows states."""
        observations, rewards, terminated, truncated = self.lanes.step(np.array([action]))
        return observations[0], float(rewards[0]), bool(terminated[0]), bool(truncated[0]), self._info()

    def _info(self) -> dict[str, Any]:
        states = self.lanes.states
        if states is None:
            return {}
        return {"state": int(states[0]) if states.ndim == 1 else states[0]}


class VectorLanes(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """N lanes of any environment of ours, with Gymnasium's three ways of beginning anew.

    NEXT_STEP: the step after the end of a lane ignores its action and returns the first observation of a new
    episode, reward 0 and both flags False. SAME_STEP: the step that ends a lane returns the first observation
    of the next episode, and the last one of the old in `infos["final_obs"]`. DISABLED: the caller says
    `reset(options={"reset_mask": mask})`; stepping a lane that ended is a ValueError.

    Infos are laid out as `SyncVectorEnv` does. Lanes share one generator: one seed for all of them.
    """

    def __init__(
        self,
        lanes: LaneEnv,
        num_envs: int = 1,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    ) -> None:
        _expect_reset_lanes(lanes)
        self.lanes = lanes
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {"render_modes": [], "autoreset_mode": self.autoreset_mode}
        self.num_envs, self.render_mode = num_envs, None
        self.single_observation_space = gymnasium_space(lanes.observation_space)
        self.single_action_space = gymnasium_space(lanes.action_space)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        space = lanes.action_space
        # Some valid action, for lanes whose action does not count.
        self._anything = np.clip(0.0, *space.bounds) if isinstance(space, Vector) else no_actions(space, 1)[0]
        self._observations = np.zeros(num_envs, np.int64)
        self._over = np.zeros(num_envs, bool)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin anew in all lanes, or in those of `options["reset_mask"]` (bool [N]); observations of all."""
        mask = (options or {}).get("reset_mask")
        if mask is None:
            super().reset(seed=seed)
            self._observations = self.lanes.reset(self.np_random, self.num_envs)
            self._over = np.zeros(self.num_envs, bool)
            return self._observations.copy(), self._infos(np.ones(self.num_envs, bool))
        if seed is not None:
            raise ValueError("seed and reset_mask do not go together: lanes share one generator")
        mask = np.asarray(mask)
        begun = self.lanes.reset_lanes(mask)
        self._observations[mask] = begun
        self._over[mask] = False
        return self._observations.copy(), self._infos(mask)

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Observations, rewards, terminations, truncations, each over N, and infos."""
        anew = self._over
        starting = self.autoreset_mode is AutoresetMode.NEXT_STEP and bool(anew.any())
        if starting:
            # Lanes are stepped all at once, those too that only begin in this step. So they are reset, take
            # some valid action, and are reset again below: what they did is thrown away.
            self.lanes.reset_lanes(anew)
            actions = np.array(actions)
            actions[anew] = self._anything
        observations, rewards, terminated, truncated = self.lanes.step(actions)
        if starting:
            observations[anew] = self.lanes.reset_lanes(anew)
            rewards[anew] = 0.0
            terminated[anew] = truncated[anew] = False
        infos: dict[str, Any] = {}
        self._over = terminated | truncated
        if self.autoreset_mode is AutoresetMode.SAME_STEP and self._over.any():
            infos = self._finals(observations)
            observations[self._over] = self.lanes.reset_lanes(self._over)
        self._observations = observations
        infos |= self._infos(np.ones(self.num_envs, bool))
        return observations.copy(), rewards, terminated, truncated, infos

    def _infos(self, mask: np.ndarray) -> dict[str, Any]:
        """Hidden states of the lanes in `mask`, 0 elsewhere; {} if the environment does not show them."""
        states = self.lanes.states
        if states is None:
            return {}
        there = mask if states.ndim == 1 else mask[:, None]
        return {"state": np.where(there, states, np.zeros((), states.dtype)), "_state": mask.copy()}

    def _finals(self, observations: np.ndarray) -> dict[str, Any]:
        """The last observations of lanes that ended, before these begin anew."""
        last = np.full(self.num_envs, None, dtype=object)
        for lane in np.flatnonzero(self._over):
            last[lane] = observations[lane].copy()
        return {
            "final_obs": last,
            "_final_obs": self._over.copy(),
            "final_info": self._infos(self._over),
            "_final_info": self._over.copy(),
        }


def _expect_reset_lanes(lanes: LaneEnv) -> None:
    if lanes.autoresets:
        raise ValueError(f"{lanes} begins anew while stepping; expected an environment with `reset_lanes`")


class PomdpEnv(SingleLane):
    """A written-out POMDP, one episode at a time; rewards in the units of the problem."""

    lanes: TabularEnv

    def __init__(
        self,
        problem: POMDP | str,
        horizon: int | None = None,
        show_initial: bool = True,
        render_mode: str | None = None,
    ) -> None:
        """`problem`: itself or the name of a classic; `horizon`: steps after which episodes are truncated."""
        super().__init__(lanes_of(problem, horizon, show_initial), render_mode)

    @property
    def problem(self) -> POMDP:
        """The problem as it is played: in Gymnasium's timing, if that is possible."""
        return self.lanes.problem


class PomdpVectorEnv(VectorLanes):
    """A written-out POMDP, N episodes at once."""

    lanes: TabularEnv

    def __init__(
        self,
        problem: POMDP | str,
        num_envs: int = 1,
        horizon: int | None = None,
        show_initial: bool = True,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        max_episode_steps: int | None = None,
    ) -> None:
        """`max_episode_steps` is Gymnasium's word for `horizon`. If both are given, the smaller one holds."""
        limit = shorter(horizon, max_episode_steps)
        super().__init__(lanes_of(problem, limit, show_initial), num_envs, autoreset_mode)

    @property
    def problem(self) -> POMDP:
        """The problem as it is played: in Gymnasium's timing, if that is possible."""
        return self.lanes.problem


def task_env(
    task: str, horizon: int | None = None, render_mode: str | None = None, **numbers: Any
) -> SingleLane:
    """The task of that name (`tasks`), one episode at a time."""
    return SingleLane(tasks()[task](horizon=horizon, **numbers), render_mode)


def task_vector_env(
    task: str,
    num_envs: int = 1,
    horizon: int | None = None,
    autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    max_episode_steps: int | None = None,
    **numbers: Any,
) -> VectorLanes:
    """The task of that name (`tasks`), N episodes at once."""
    limit = shorter(horizon, max_episode_steps)
    return VectorLanes(tasks()[task](horizon=limit, **numbers), num_envs, autoreset_mode)


def shorter(*horizons: int | None) -> int | None:
    """The smallest of the horizons; None if all are None."""
    return min((n for n in horizons if n is not None), default=None)


def environment_id(name: str) -> str:
    """Gymnasium's id of a problem or task: `rock-sample-7-8` is turnwise/RockSample-7-8-v0."""
    words = re.split(r"[^A-Za-z0-9.]+", name)
    parts = (f"-{w}" if w[:1].isdigit() else w[:1].upper() + w[1:] for w in words)
    return f"{NAMESPACE}/{SPELLINGS.get(name, ''.join(parts).lstrip('-'))}-v0"


def register_environments() -> list[str]:
    """Register turnwise/POMDP-v0, the classics and the tasks with Gymnasium, once. Returns their ids."""
    from turnwise.envs.problems.classics import CLASSICS

    problems = {f"{NAMESPACE}/POMDP-v0": {}} | {environment_id(n): {"problem": n} for n in CLASSICS}
    named = {environment_id(n): {"task": n} for n in tasks()}
    pairs = [(problems, PomdpEnv, PomdpVectorEnv), (named, task_env, task_vector_env)]
    for entries, single, vector in pairs:
        for name, kwargs in entries.items():
            if name not in gymnasium.registry:
                gymnasium.register(
                    name,
                    entry_point=f"{__name__}:{single.__name__}",
                    vector_entry_point=f"{__name__}:{vector.__name__}",
                    kwargs=kwargs,
                )
    return [*problems, *named]
