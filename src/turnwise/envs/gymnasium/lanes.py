"""Any Gymnasium environment as lanes, whichever of Gymnasium's three autoreset modes it has.

    lanes = lanes_of_gymnasium("CartPole-v1", 64)
    lanes = lanes_of_gymnasium(my_vector_env, 64)
    lanes = lanes_by_id("turnwise/Tiger-v0", 64, horizon=20)      # ours: no Gymnasium in between

`Step.observations` always has the observation that the step led to. So a truncated episode is bootstrapped
from its last observation, never from the first one of the next episode:

    NEXT_STEP   the step after the end begins anew: `autoresets` is True
    SAME_STEP   the step that ends an episode returns the first observation of the next one already; it is
                kept for `reset_lanes`, and the last observation is read from `infos["final_obs"]`
    DISABLED    `reset_lanes` resets with `options={"reset_mask": mask}`

A vector environment that does not declare its mode is refused: a guess would put one wrong transition at each
boundary, in silence.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from turnwise.envs.gymnasium.checked import Checked
from turnwise.envs.gymnasium.door import SingleLane, VectorLanes, environment_id, lanes_of, shorter, tasks
from turnwise.envs.gymnasium.standing import Record, numbers_of, set_numbers_
from turnwise.envs.gymnasium.translation import Translation
from turnwise.envs.gymnasium.workers import Workers
from turnwise.envs.protocol import LaneEnv, NotReproduced, Space, Step
from turnwise.run.errors import InputError, SettingError


def lanes_of_gymnasium(
    env: str | VectorEnv, lanes: int, *, workers: int = 1, **kwargs: Any
) -> GymnasiumLanes:
    """Lanes of a Gymnasium id (`kwargs` go to its environment), or of a vector environment with N = `lanes`.

    An id with a vector environment of its own gets that; any other one is stepped lane by lane, in so many
    processes (`workers`). SettingError for workers where all lanes are stepped at once.
    """
    if isinstance(env, str):
        return GymnasiumLanes(_vector_env(env, lanes, workers, kwargs))
    if kwargs:
        raise InputError(f"{env} is made already; {', '.join(kwargs)} cannot be passed to it")
    expect_one_worker(str(env), workers)
    if env.num_envs != lanes:
        raise InputError(f"{env} has {env.num_envs} environments; expected {lanes}, one for each lane")
    return GymnasiumLanes(env)


def expect_one_worker(name: str, workers: int) -> None:
    """SettingError for several processes where one steps all lanes by array operations."""
    if workers > 1:
        raise SettingError("workers", workers, f"1: {name} steps all lanes at once")


def _vector_env(name: str, lanes: int, workers: int, kwargs: dict[str, Any]) -> VectorEnv:
    """The vector environment of an id. InputError if Gymnasium refuses (no such id, a missing package)."""
    try:
        spec = gymnasium.spec(name)
        if spec.vector_entry_point is not None and not spec.additional_wrappers:
            expect_one_worker(name, workers)
            return gymnasium.make_vec(name, lanes, **kwargs)
        # Gymnasium's own checker looks at the first step alone, and ours at every one.
        made = partial(gymnasium.make, name, disable_env_checker=True, **kwargs)
        return one_by_one(made, lanes, workers=workers)
    except (gymnasium.error.Error, ImportError) as error:
        raise InputError(f"{name}: {' '.join(str(error).split())}") from error
    except TypeError as error:  # so Gymnasium says that an environment does not take an argument
        own = {k: v for k, v in kwargs.items() if k != "max_episode_steps"}
        if not own:
            raise
        expected = f"arguments that {name} takes ({' '.join(str(error).split())})"
        raise SettingError("env_kwargs", _in_words(own), expected) from error


def one_by_one(
    make: Callable[[], gymnasium.Env], lanes: int, horizon: int | None = None, workers: int = 1
) -> SyncVectorEnv | Workers:
    """Environments that `make` makes, one for each lane, each of whose answers is checked.

    `horizon`: steps after which their episodes are truncated. `workers`: processes that step them.
    """

    def made(lane: int) -> gymnasium.Env:
        env = Checked(make(), lane)
        return env if horizon is None else gymnasium.wrappers.TimeLimit(env, horizon)

    if min(workers, lanes) > 1:
        return Workers(made, lanes, workers)
    # Lanes begin anew by our word, each from a seed of its own: so a stopped run can play them again.
    return SyncVectorEnv(
        [partial(made, lane) for lane in range(lanes)], autoreset_mode=AutoresetMode.DISABLED
    )


class GymnasiumLanes:
    """A vector environment as `LaneEnv`. Each reset draws one seed for all lanes from its generator, or one
    for each episode if lanes are stepped one by one and begin anew by `reset_lanes`.

    If both flags of a step are True, the episode terminated. Only environments of ours show hidden states.
    """

    def __init__(self, envs: VectorEnv) -> None:
        mode = envs.metadata.get("autoreset_mode")
        if not isinstance(mode, AutoresetMode):
            raise InputError(
                f"metadata['autoreset_mode'] of {envs} is {mode!r}, so nobody knows what is seen when "
                f"episodes end; expected one of {', '.join(f'AutoresetMode.{m.name}' for m in AutoresetMode)}"
            )
        self.envs, self.mode = envs, mode
        self.translation = Translation.of(envs.single_observation_space, envs.single_action_space)
        self._seen, self._actions = self.translation.observations, self.translation.actions
        self._state_space = _state_space(envs)
        self._states: np.ndarray | None = None
        self._first_states = np.zeros(0)
        self._over: np.ndarray | None = None
        self._record = Record.of(envs)
        self._shown: np.ndarray = np.zeros(0)
        self._first: np.ndarray = np.zeros(0)

    @property
    def observation_space(self) -> Space:
        """Symbols, or the vectors into which anything else is flattened."""
        return self._seen.space

    @property
    def action_space(self) -> Space:
        """Symbols from 0 on, or vectors within bounds."""
        return self._actions.space

    @property
    def state_space(self) -> Space | None:
        """The space of hidden states; None for environments that are not ours."""
        return self._state_space

    @property
    def states(self) -> np.ndarray | None:
        """[N] or [N, d]; None for environments that are not ours."""
        return None if self._states is None else self._states.copy()

    @property
    def autoresets(self) -> bool:
        """Whether the environment's autoreset mode is NEXT_STEP."""
        return self.mode is AutoresetMode.NEXT_STEP

    def reset(self, rng: np.random.Generator, lanes: int) -> np.ndarray:
        """Begin an episode in each of N lanes. First observations."""
        if lanes != self.envs.num_envs:
            raise ValueError(f"lanes is {lanes}; expected {self.envs.num_envs}, as the environment was made")
        self._rng = rng
        if self._record is not None:
            seed: Any = self._record.begin(rng, np.ones(lanes, bool))
        else:
            seed = int(rng.integers(2**31))
        observations, infos = self.envs.reset(seed=seed)
        self._over = np.zeros(lanes, bool)
        if self._state_space is not None:
            self._states = np.array(infos["state"])
        self._first = self._shown = self._seen.read(observations)
        return self._first.copy()

    def step(self, actions: np.ndarray) -> Step:
        """Take `actions`, one in each lane."""
        over = self._under_way()
        if over.any() and self.mode is not AutoresetMode.NEXT_STEP:
            raise ValueError(f"lane {np.argmax(over)} has ended; reset_lanes comes before a step")
        seen, rewards, terminated, truncated, infos = self.envs.step(self._actions.write(actions))
        if self._record is not None:
            self._record.took(actions)
        terminated = np.array(terminated, bool)  # a copy: the environment may write into its own array again
        truncated = np.logical_and(truncated, ~terminated)
        self._over = over = terminated | truncated
        observations = self._seen.read(seen)
        if self._state_space is not None:
            self._states = np.array(infos["state"])
        if self.mode is AutoresetMode.SAME_STEP and over.any():
            # In lanes that ended, these are the first observations of new episodes; callers get the last.
            self._first, observations = observations, observations.copy()
            observations[over] = self._seen.read_each(list(np.asarray(infos["final_obs"])[over]))
            if self._states is not None:
                self._first_states = self._states.copy()
                self._states[over] = infos["final_info"]["state"][over]
        self._shown = observations.copy()
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
            seed: Any = None if self._record is None else self._record.begin(self._rng, mask)
            seen, infos = self.envs.reset(seed=seed, options={"reset_mask": mask.copy()})
            first = self._seen.read(seen)[mask]
            if self._states is not None:
                self._states[mask] = infos["state"][mask]
        over[mask] = False
        self._shown[mask] = first
        return first

    def close(self) -> None:
        """End the processes that step the lanes, if there are any; a reset starts new ones."""
        if isinstance(self.envs, Workers):
            self.envs.close()
            self._over = None

    @property
    def resumes(self) -> bool:
        """Whether lanes are stepped one by one, or hold nothing but numbers."""
        return self._record is not None or numbers_of(self.envs) is not None

    def state(self) -> dict[str, Any]:
        """Where the lanes stand."""
        own = {"over": self._under_way(), "shown": self._shown, "first": self._first}
        own |= {"states": self._states, "first_states": self._first_states}
        kept = {k: None if v is None else v.copy() for k, v in own.items()}
        if self._record is not None:
            return {**kept, "record": self._record.state()}
        return {**kept, "numbers": numbers_of(self.envs)}

    def load(self, state: dict[str, Any], rng: np.random.Generator) -> None:
        """Stand there, and draw from `rng` from now on. NotReproduced if what is shown then is another."""
        self._rng = rng
        own = ("over", "shown", "first", "states", "first_states")
        kept: dict[str, Any] = {k: None if state[k] is None else state[k].copy() for k in own}
        self._over, self._shown, self._first = kept["over"], kept["shown"], kept["first"]
        self._states, self._first_states = kept["states"], kept["first_states"]
        if self._record is None:
            set_numbers_(self.envs, state["numbers"])
            return
        shown = self._seen.read_each(self._record.play(state["record"], self._actions.write))
        if not np.array_equal(shown, self._shown, equal_nan=True):
            lane = int(np.argmax((shown != self._shown).reshape(len(shown), -1).any(1)))
            raise NotReproduced(f"in lane {lane} the same seed and actions led elsewhere")

    def _under_way(self) -> np.ndarray:
        if self._over is None:
            raise ValueError("no episode is under way; reset comes first")
        return self._over


def _state_space(envs: VectorEnv) -> Space | None:
    """The space of the hidden states in `infos["state"]`; None for environments that are not ours."""
    inner = envs.unwrapped
    if isinstance(inner, SyncVectorEnv):
        inner = inner.envs[0].unwrapped
    return inner.lanes.state_space if isinstance(inner, VectorLanes | SingleLane) else None


def translation_of(env: LaneEnv) -> Translation:
    """Of any lanes."""
    if isinstance(env, GymnasiumLanes):
        return env.translation
    return Translation.of_ours(env.observation_space, env.action_space)


def lanes_by_id(
    name: str, lanes: int, horizon: int | None = None, *, workers: int = 1, **kwargs: Any
) -> LaneEnv:
    """Lanes of an environment of ours, by name ("tiger") or id ("turnwise/Tiger-v0"), or of any Gymnasium id.

    Ours come without Gymnasium in between, problems in its timing (`lanes_of`). `horizon`: steps after which
    an episode is truncated, if the environment does not cut it earlier; None: the environment's own limit.
    `kwargs` go to the environment, and `workers` processes step one of Gymnasium. InputError with Gymnasium's
    own reason for an id that it refuses, SettingError for arguments that the environment does not take.
    """
    from turnwise.envs.problems.classics import CLASSICS

    ours = {n: n for n in (*CLASSICS, *tasks())}
    ours |= {environment_id(n): n for n in ours}
    if name in ours:
        expect_one_worker(name, workers)
        ours_name = ours[name]
        if ours_name not in CLASSICS:
            make = tasks()[ours_name]
            expect_arguments(make, kwargs)
            return make(horizon=horizon, **kwargs)
        if kwargs:
            raise SettingError("env_kwargs", _in_words(kwargs), f"none: {ours_name} takes no arguments")
        return lanes_of(ours_name, horizon, show_initial=True)
    try:
        spec = gymnasium.spec(name)
    except gymnasium.error.Error as error:
        known, reason = ", ".join(n for n in ours if "/" not in n), " ".join(str(error).split())
        if not isinstance(error, gymnasium.error.NameNotFound) or "Did you mean" in reason:
            raise InputError(f"no environment is called {name!r}: {reason}") from error
        raise InputError(
            f"no environment is called {name!r}; expected one of {known}; an id of Gymnasium, as "
            "CartPole-v1, or module:ID for one that a module registers; or a class as module:Class"
        ) from error
    limit = shorter(horizon, spec.max_episode_steps)
    if limit is not None:
        kwargs = {**kwargs, "max_episode_steps": limit}
    return lanes_of_gymnasium(name, lanes, workers=workers, **kwargs)


def expect_arguments(make: Callable[..., Any], kwargs: Mapping[str, Any]) -> None:
    """SettingError for arguments that what makes an environment does not take."""
    try:
        signature = inspect.signature(make)
    except (TypeError, ValueError):  # compiled callables have none: they check their arguments themselves
        return
    try:
        signature.bind(**kwargs)
    except TypeError as error:
        kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        known = [n for n, p in signature.parameters.items() if p.kind in kinds and n != "horizon"]
        expected = f"arguments of the environment: {', '.join(known) or 'it has none'} ({error})"
        raise SettingError("env_kwargs", _in_words(kwargs), expected) from error


def _in_words(kwargs: Mapping[str, Any]) -> str | None:
    return " ".join(f"{k}={v}" for k, v in kwargs.items()) or None
