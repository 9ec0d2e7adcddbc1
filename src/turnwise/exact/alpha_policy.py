"""A policy as alpha vectors: values of plans, linear in the belief, each with what to do now and next.

An alpha vector [S] holds what a plan is worth in each state; at a belief b the plan is worth alpha . b. The
maximum over a set of plans is therefore convex and piecewise linear (Smallwood & Sondik 1973).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np

from turnwise.run.errors import InputError

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
    successors: np.ndarray
    """[n, O], the plan that goes on after each observation: together they are a controller of n nodes"""

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
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        np.savez_compressed(file, alphas=policy.alphas, actions=policy.actions, successors=policy.successors)
    part.replace(path)


def load_policy(path: Path) -> AlphaPolicy:
    """Read what `save_policy` wrote. Anything else is an InputError."""
    try:
        with np.load(path, allow_pickle=False) as found:
            policy = AlphaPolicy(found["alphas"], found["actions"], found["successors"])
    except (OSError, ValueError, KeyError, EOFError) as e:
        raise InputError(f"{path}: expected a policy of alpha vectors (.npz): {e}") from e
    return policy


def write_appl(policy: AlphaPolicy, path: Path, name: str) -> None:
    """Write the vectors in the format of APPL's solvers (`.policy`, XML): actions and values, no successors.

    Plans that draw actions at random are left out, since the format has no word for them.
    """
    named = policy.actions != RANDOM
    n, S = policy.alphas[named].shape
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8") as file:
        file.write('<?xml version="1.0" encoding="ISO-8859-1"?>\n')
        file.write(f'<Policy version="0.1" type="value" model={quoteattr(name)}>\n')
        file.write(f'<AlphaVector vectorLength="{S}" numObsValue="1" numVectors="{n}">\n')
        for action, alpha in zip(policy.actions[named], policy.alphas[named], strict=True):
            values = " ".join(f"{x:.9g}" for x in alpha)
            file.write(f'<Vector action="{action}" obsValue="0">{values} </Vector>\n')
        file.write("</AlphaVector> </Policy>\n")
    part.replace(path)
