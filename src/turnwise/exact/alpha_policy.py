"""A policy as alpha vectors: linear values of plans over beliefs, each with what to do now and next."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np

from turnwise.run.errors import InputError

RANDOM = -1
"""the action of a plan that draws every action uniformly (it comes up at discount 1 only)"""


@dataclass(frozen=True)
class AlphaPolicy:
    """Act by the plan that is worth most at the belief: argmax_i alphas[i] . b, then actions[i].

    V(b) >= max_i alphas[i] . b for this policy, because every plan goes on with plans of the set. At
    discount 1 that holds for who follows the plans (`follow`) and not for who chooses anew at every belief:
    of two plans worth the same, one may only put off the other.
    """

    alphas: np.ndarray
    """[n, S], value of each plan in each state"""
    actions: np.ndarray
    """[n], index of the first action, or RANDOM"""
    follow: np.ndarray
    """[n, O], the plan that goes on after each observation: together they are a controller of n nodes"""

    def __len__(self) -> int:
        return len(self.alphas)

    def best(self, beliefs: np.ndarray) -> np.ndarray:
        """[N], the best plan at each of `beliefs` [N, S] (an array, or a sparse matrix)."""
        return np.asarray(beliefs @ self.alphas.T).argmax(1)

    def value(self, belief: np.ndarray) -> float:
        """max_i alphas[i] . belief, a lower bound of what the policy is worth there."""
        return float((self.alphas @ belief).max())


def save_policy(policy: AlphaPolicy, path: Path) -> None:
    """As a .npz of NumPy with the arrays `alphas` [n, S], `actions` [n] and `follow` [n, O]."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        np.savez_compressed(file, alphas=policy.alphas, actions=policy.actions, follow=policy.follow)
    part.replace(path)


def load_policy(path: Path) -> AlphaPolicy:
    """What `save_policy` wrote."""
    try:
        with np.load(path, allow_pickle=False) as found:
            policy = AlphaPolicy(found["alphas"], found["actions"], found["follow"])
    except (OSError, ValueError, KeyError, EOFError) as e:
        raise InputError(f"{path}: expected a policy of alpha vectors (.npz): {e}") from e
    return policy


def write_appl(policy: AlphaPolicy, path: Path, name: str) -> None:
    """The same vectors in the format of APPL's solvers (`.policy`, XML): action and values, no successors.

    Plans that draw actions at random have no place in it and are left out.
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
