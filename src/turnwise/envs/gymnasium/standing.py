"""Where the episodes of a Gymnasium environment stand, said in numbers, so that a stopped run can go on.

A single environment is a function of its seed and of its actions. So each episode gets a seed of its own, and
what was done since is written down: played again, it leads to the same place. A vector environment that seeds
all lanes at once has no such record. If all that it holds is numbers and arrays, these are where it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from turnwise.envs.protocol import NotReproduced


@runtime_checkable
class Played(Protocol):
    """Lanes in other processes, which play what was done there."""

    num_envs: int
    metadata: dict[str, Any]

    def play(self, seeds: Sequence[int], actions: Sequence[Sequence[Any]]) -> list[Any]:
        """The last observation of each lane after its seed and its actions."""
        ...


class Record:
    """The seed of each lane's episode and its actions since, of environments that are stepped one by one."""

    def __init__(self, envs: SyncVectorEnv | Played) -> None:
        self.envs = envs
        self.seeds = np.zeros(envs.num_envs, np.int64)
        self.actions: list[list[np.ndarray]] = [[] for _ in range(envs.num_envs)]

    @staticmethod
    def of(envs: VectorEnv) -> Record | None:
        """None if episodes of these lanes cannot be seeded one by one."""
        if not (type(envs) is SyncVectorEnv or isinstance(envs, Played)):
            return None
        by_hand = envs.metadata["autoreset_mode"] is AutoresetMode.DISABLED
        return Record(envs) if by_hand else None

    def begin(self, rng: np.random.Generator, mask: np.ndarray) -> list[int | None]:
        """Seeds for the episodes that begin where `mask` [N] is True; None elsewhere."""
        self.seeds[mask] = rng.integers(2**31, size=int(mask.sum()))
        for lane in np.flatnonzero(mask):
            self.actions[lane] = []
        return [int(s) if m else None for s, m in zip(self.seeds, mask, strict=True)]

    def took(self, actions: np.ndarray) -> None:
        """Write down one action of each lane, [N] or [N, d]."""
        for lane, action in zip(self.actions, np.array(actions), strict=True):
            lane.append(action)

    def state(self) -> dict[str, Any]:
        """Seeds [N], lengths [N], and all actions one lane after the other."""
        taken = [a for lane in self.actions for a in lane]
        return {
            "seeds": self.seeds.copy(),
            "lengths": np.array([len(lane) for lane in self.actions], np.int64),
            "actions": np.stack(taken) if taken else np.zeros(0, np.int64),
        }

    def play(self, state: dict[str, Any], write: Callable[[np.ndarray], Any]) -> list[Any]:
        """Begin the episodes again and do what was done; the last observation of each lane.

        `write` turns a batch of actions into what the environments take.
        """
        self.seeds = state["seeds"].copy()
        parts = np.split(state["actions"], np.cumsum(state["lengths"])[:-1])
        self.actions = [list(part) for part in parts]
        done = [[write(part[i : i + 1])[0] for i in range(len(part))] for part in parts]
        seeds = self.seeds.tolist()
        if not isinstance(self.envs, SyncVectorEnv):
            return self.envs.play(seeds, done)
        self.envs.reset(seed=seeds)
        each = enumerate(zip(self.envs.envs, seeds, done, strict=True))
        return [played(env, lane, seed, actions) for lane, (env, seed, actions) in each]


def played(env: gymnasium.Env, lane: int, seed: int, actions: Sequence[Any]) -> Any:
    """The last observation after a reset with that seed and these actions. NotReproduced if it fails."""
    try:
        observation, _ = env.reset(seed=seed)
        for action in actions:
            observation, *_ = env.step(action)
    except Exception as e:  # whatever a stranger's environment does in a place it was never in
        raise NotReproduced(f"lane {lane} failed where it had not ({e!r})") from e
    return observation


def numbers_of(envs: VectorEnv) -> dict[str, Any] | None:
    """All that an environment holds besides its spaces; None unless that is numbers, texts and arrays."""
    found: dict[str, Any] = {}
    for name, value in vars(envs).items():
        if isinstance(value, gymnasium.Space | EnvSpec):
            continue
        if isinstance(value, np.random.Generator):
            value = {"generator": value.bit_generator.state}
        elif isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
            value = value.copy()
        elif not (value is None or type(value) in (bool, int, float, str)):
            return None
        found[name] = value
    return found


def set_numbers_(envs: VectorEnv, found: dict[str, Any]) -> None:
    """Stand where `numbers_of` said, in a fresh environment of the same kind."""
    own = vars(envs).keys() | {"_np_random", "_np_random_seed"}  # these two come with the first reset
    if not found.keys() <= own:
        raise NotReproduced(f"{envs} has no {min(found.keys() - own)}")
    for name, value in found.items():
        if isinstance(value, dict):
            generator = np.random.default_rng(0)
            generator.bit_generator.state = value["generator"]
            value = generator
        setattr(envs, name, value.copy() if isinstance(value, np.ndarray) else value)
