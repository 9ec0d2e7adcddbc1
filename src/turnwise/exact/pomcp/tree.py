"""What the two trees share: the interfaces, the policy of rollouts, the refill of particles."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Protocol, runtime_checkable

import numpy as np

from turnwise.run.errors import InputError

TRIES = 32
"""draws for each missing particle, at most, when particles are refilled by rejection"""


class BeliefLost(InputError):
    """No particle agrees with what was seen."""


@runtime_checkable
class Simulator(Protocol):
    """A problem that can be drawn from.

    A state may be any object that `step` does not change; an observation any value that can be a key of a
    dict.
    """

    actions: int
    """number of actions"""
    discount: float
    """per step, from 0 to 1"""

    def start(self, rng: np.random.Generator) -> Any:
        """Draw s_0."""
        ...

    def step(self, state: Any, action: int, rng: np.random.Generator) -> tuple[Any, Hashable, float, bool]:
        """Draw (next state, observation, reward, whether the episode ended)."""
        ...


@runtime_checkable
class WeighingSimulator(Simulator, Protocol):
    """A simulator that also says how likely an observation is. Needed where observations do not repeat."""

    def likelihood(self, observation: Any, action: int, state: Any) -> float:
        """The density (or probability) of `observation` after `action` led to `state`; any common factor."""
        ...


class Tree(Protocol):
    """A search tree over histories, whose root moves on with what is done and seen."""

    @property
    def states(self) -> np.ndarray | list[Any]:
        """The states that simulations begin from."""
        ...

    @property
    def counts(self) -> np.ndarray:
        """[A], N(h, a) at the root."""
        ...

    @property
    def values(self) -> np.ndarray:
        """[A], V(h, a) at the root."""
        ...

    def begin(self, observation: int | None, rng: np.random.Generator) -> None:
        """Start an episode: forget everything; `observation` is what was shown first, None if nothing was."""
        ...

    def simulate(self, simulations: int, rng: np.random.Generator) -> None:
        """Run simulations from the root."""
        ...

    def follow(self, action: int, observation: Any, rng: np.random.Generator) -> None:
        """Make the child after `action` and `observation` the root, with the belief after them."""
        ...


def rollout_weights(policy: Any, legal: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Probabilities along the last axis of `shape`: those of `policy` among the legal actions.

    `policy` None means uniform, `legal` None that all actions are.
    """
    weights = np.ones(shape)
    for name, given in (("policy", policy), ("legal", legal)):
        if given is not None:
            given = np.asarray(given, np.float64)
            if given.shape != shape or (given < 0).any():
                raise InputError(f"{name} has shape {given.shape}; expected {shape} and no number below 0")
            weights = weights * given
    total = weights.sum(-1, keepdims=True)
    if not (total > 0).all():
        raise InputError("policy and legal leave no action in some state; expected at least one in each")
    return weights / total


def topped_up(found: Any, wanted: int, names: tuple[Any, Any], rng: np.random.Generator) -> Any:
    """The particles `found`; if they are fewer than `wanted`, some of them again.

    `names` are the action and the observation for the message of BeliefLost, if none was found.
    """
    if len(found) == 0:
        raise BeliefLost(
            f"all particles are gone: none of {TRIES * wanted:,} draws shows {names[1]} after {names[0]}; "
            "expected more `particles` (or `exact_belief=True` if the problem is written out), and a "
            "simulator in which what happened is possible"
        )
    again = rng.integers(len(found), size=max(0, wanted - len(found)))
    if isinstance(found, list):
        return [*found, *(found[i] for i in again)]
    return np.concatenate([found, found[again]])
