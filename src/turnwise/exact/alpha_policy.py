"""A policy as alpha vectors: values of plans, linear in the belief, each with what to do now and next.

An alpha vector [S] holds what a plan is worth in each state; at a belief b the plan is worth alpha . b. The
maximum over a set of plans is therefore convex and piecewise linear (Smallwood & Sondik 1973).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from turnwise.run.errors import InputError
from turnwise.run.files.whole import whole_file

RANDOM = -1
"""action of a plan that draws every action uniformly (it occurs at discount 1 only)"""


@dataclass(frozen=True)
class AlphaPolicy:
    """Act by the plan that is worth most at the belief: argmax_i alphas[i] . b, then actions[i].

    The policy is worth at least max_i alphas[i] . b, because every plan goes on with plans of the set. At
    discount 1 this needs an agent that follows one plan to its end (`successors`). One that chooses anew
    at every belief may earn less: of two plans worth the same, one may only put off the other.
    """

    alphas: np.ndarray
    """[n, S], the value of each plan in each state"""
    actions: np.ndarray
    """[n], index of each plan's first action, or RANDOM"""
    successors: np.ndarray | None
    """[n, O], the plan that goes on after each observation: together they are a controller of n nodes. None
    if nobody says: a policy of another solver, whose vectors promise nothing that could be checked"""

    def __len__(self) -> int:
        return len(self.alphas)

    def best(self, beliefs: np.ndarray) -> np.ndarray:
        """[N], the best plan at each of `beliefs` [N, S] (an array, or a sparse matrix)."""
        return np.asarray(beliefs @ self.alphas.T).argmax(1)

    def value(self, belief: np.ndarray) -> float:
        """max_i alphas[i] . belief, a lower bound of the policy's value at `belief` [S]."""
        return float((self.alphas @ belief).max())


def save_policy(policy: AlphaPolicy, path: Path) -> None:
    """Write a .npz of NumPy with the arrays `alphas` [n, S], `actions` [n] and `successors` [n, O]."""
    arrays = {"alphas": policy.alphas, "actions": policy.actions, "successors": policy.successors}
    with whole_file(path) as part, part.open("wb") as file:
        np.savez_compressed(file, **{name: x for name, x in arrays.items() if x is not None})


def load_policy(path: Path) -> AlphaPolicy:
    """Read what `save_policy` wrote. Anything else is an InputError."""
    try:
        with np.load(path, allow_pickle=False) as found:
            follow = found.get("successors")
            policy = AlphaPolicy(found["alphas"], found["actions"], follow)
    except (OSError, ValueError, KeyError, EOFError) as e:
        raise InputError(f"{path}: expected a policy of alpha vectors (.npz): {e}") from e
    return policy
