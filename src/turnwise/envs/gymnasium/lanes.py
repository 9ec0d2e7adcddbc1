"""Any environment of Gymnasium as lanes, whichever of its three ways of beginning anew it has.

    lanes = lanes_of_gymnasium("CartPole-v1", 64)
    lanes = lanes_of_gymnasium(my_vector_env, 64)
    lanes = lanes_by_id("turnwise/Tiger-v0", 64, horizon=20)      # ours: no Gymnasium in between

What a step led to is always in `Step.observations`, so that a truncated episode is bootstrapped from what was
seen last, never from the first observation of the next one:

    NEXT_STEP   the step after the end begins anew: `begins_while_stepping`
    SAME_STEP   the step that ends returns the first observation of the next episode already; it is kept for
                `reset_lanes`, and the last one is read from `infos["final_obs"]`
    DISABLED    `reset_lanes` asks for it with `options={"reset_mask": mask}`

A vector environment that does not declare which of these it does is refused: to guess would put one wrong
transition at each boundary, in silence.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from turnwise.envs.gymnasium.door import SingleLane, VectorLanes, environment_id, lanes_of, shorter, tasks
from turnwise.envs.gymnasium.spaces import Actions, Observations
from turnwise.envs.protocol import LaneEnv, Space, Step
from turnwise.run.errors import InputError


def lanes_of_gymnasium(env: str | VectorEnv, lanes: int, **kwargs: Any) -> GymnasiumLanes:
    """Lanes of an id of Gymnasium (`kwargs` go to its environment) or of a vector environment of N = `lanes`.

    Of an id: its own vector environment where it has one, else one environment after the other.
    """
    if isinstance(env, str):
        return GymnasiumLanes(_vector_env(env, lanes, kwargs))
    if kwargs:
        raise InputError(f"{env} is made already; {', '.join(kwargs)} cannot be passed to it")
    if env.num_envs != lanes:
        raise InputError(f"{env} has {env.num_envs} environments; expected {lanes}, one for each lane")
    return GymnasiumLanes(env)


def _vector_env(name: str, lanes: int, kwargs: dict[str, Any]) -> VectorEnv:
    """Of all lanes; errors of Gymnasium (no such id, something is not installed) are the user's to read."""
    try:
        spec = gymnasium.spec(name)
        if spec.vector_entry_point is not None and not spec.additional_wrappers:
            return gymnasium.make_vec(name, lanes, **kwargs)
        same_step = {"autoreset_mode": AutoresetMode.SAME_STEP}
        return gymnasium.make_vec(name, lanes, "sync", vector_kwargs=same_step, **kwargs)
    except (gymnasium.error.Error, ImportError) as error:
        raise InputError(f"{name}: {error}") from error


class GymnasiumLanes:
    """A vector environment as `LaneEnv`; one seed for all of it is drawn from the generator of `reset`.

    Both flags at once count as an end. Hidden states are told by environments of ours only.
    """

    def __init__(self, envs: VectorEnv) -> None:
        mode = envs.metadata.get("autoreset_mode")
        if not isinstance(mode, AutoresetMode):
            raise InputError(
                f"metadata['autoreset_mode'] of {envs} is {mode!r}, and nobody knows what is seen where an "
                f"episode ends; expected one of {', '.join(f'AutoresetMode.{m.name}' for m in AutoresetMode)}"
            )
        self.envs, self.mode = envs, mode
        self._seen = Observations.of(envs.single_observation_space)
        self._actions = Actions.of(envs.single_action_space)
        self._state_space = _state_space(envs)
        self._states: np.ndarray | None = None
        self._first_states = np.zeros(0)
        self._over: np.ndarray | None = None

    @property
    def observation_space(self) -> Space:
        """Symbols, or vectors into which everything else is flattened."""
        return self._seen.space

    @property
    def action_space(self) -> Space:
        """Symbols from 0 on, or numbers within bounds."""
        return self._actions.space

    @property
    def state_space(self) -> Space | None:
        """Of hidden states; None for environments that are not ours."""
        return self._state_space

    @property
    def states(self) -> np.ndarray | None:
        """[N] or [N, d]; None for environments that are not ours."""
        return None if self._states is None else self._states.copy()

    @property
    def begins_while_stepping(self) -> bool:
        """Whether the environment begins anew in the next step."""
        return self.mode is AutoresetMode.NEXT_STEP

    def reset(self, rng: np.random.Generator, lanes: int) -> np.ndarray:
        """Begin an episode in each of N lanes. First observations."""
        if lanes != self.envs.num_envs:
            raise ValueError(f"lanes is {lanes}; expected {self.envs.num_envs}, as the environment was made")
        observations, infos = self.envs.reset(seed=int(rng.integers(2**31)))
        self._over = np.zeros(lanes, bool)
        if self._state_space is not None:
            self._states = np.array(infos["state"])
        self._first = self._seen.read(observations)
        return self._first.copy()

    def step(self, actions: np.ndarray) -> Step:
        """Take `actions`, one in each lane."""
        over = self._under_way()
        if over.any() and self.mode is not AutoresetMode.NEXT_STEP:
            raise ValueError(f"lane {np.argmax(over)} has ended; reset_lanes comes before a step")
        seen, rewards, terminated, truncated, infos = self.envs.step(self._actions.write(actions))
        terminated = np.array(terminated, bool)
        truncated = np.logical_and(truncated, ~terminated)
        self._over = over = terminated | truncated
        observations = self._seen.read(seen)
        if self._state_space is not None:
            self._states = np.array(infos["state"])
        if self.mode is AutoresetMode.SAME_STEP and over.any():
            self._first, observations = observations, observations.copy()
            observations[over] = self._seen.read_each(list(np.asarray(infos["final_obs"])[over]))
            if self._states is not None:
                self._first_states = self._states.copy()
                self._states[over] = infos["final_info"]["state"][over]
        return Step(observations, np.array(rewards, np.float64), terminated, truncated)

    def reset_lanes(self, mask: np.ndarray) -> np.ndarray:
        """Begin anew where `mask` [N] bool is True. First observations of those lanes, in order."""
        over, mask = self._under_way(), np.asarray(mask)
        if mask.shape != over.shape or mask.dtype != np.bool_:
            raise ValueError(
                f"mask is {mask.dtype} of shape {mask.shape}; expected bool of shape {over.shape}"
            )
        if self.mode is AutoresetMode.NEXT_STEP:
            raise ValueError("lanes begin anew in the next step; reset_lanes is for environments that do not")
        if not mask.any():
            return np.zeros_like(self._first[:0])
        if self.mode is AutoresetMode.SAME_STEP:
            if (mask & ~over).any():
                raise ValueError(
                    f"lane {np.argmax(mask & ~over)} is under way, and cannot begin anew before it ends"
                )
            first = self._first[mask]
            if self._states is not None:
                self._states[mask] = self._first_states[mask]
        else:
            seen, infos = self.envs.reset(options={"reset_mask": mask.copy()})
            first = self._seen.read(seen)[mask]
            if self._states is not None:
                self._states[mask] = infos["state"][mask]
        over[mask] = False
        return first

    def _under_way(self) -> np.ndarray:
        if self._over is None:
            raise ValueError("no episode is under way; reset comes first")
        return self._over


def _state_space(envs: VectorEnv) -> Space | None:
    """Of the hidden states that `infos["state"]` tells: ours do."""
    inner = envs.unwrapped
    if isinstance(inner, SyncVectorEnv):
        inner = inner.envs[0].unwrapped
    return inner.lanes.state_space if isinstance(inner, VectorLanes | SingleLane) else None


def lanes_by_id(name: str, lanes: int, horizon: int | None = None) -> LaneEnv:
    """Lanes of ours, by name ("tiger") or id ("turnwise/Tiger-v0"), or of any id of Gymnasium.

    Ours come without Gymnasium in between; problems in its timing (`lanes_of`). `horizon`: steps after which
    an episode is truncated, where the environment does not cut it earlier; None: the environment's own.
    """
    from turnwise.envs.problems.classics import CLASSICS

    ours = {n: n for n in (*CLASSICS, *tasks())}
    ours |= {environment_id(n): n for n in ours}
    if name in ours:
        ours_name = ours[name]
        if ours_name in CLASSICS:
            return lanes_of(ours_name, horizon, show_initial=True)
        return tasks()[ours_name](horizon=horizon)
    known = f"expected one of {', '.join(n for n in ours if '/' not in n)}, or an id of Gymnasium"
    try:
        spec = gymnasium.spec(name)
    except gymnasium.error.Error as error:
        raise InputError(f"no environment is called {name!r}; {known}") from error
    limit = shorter(horizon, spec.max_episode_steps)
    return lanes_of_gymnasium(name, lanes, **({} if limit is None else {"max_episode_steps": limit}))
