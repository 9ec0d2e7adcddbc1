"""Words read by what they tell, where they do not say of what: "Sadly it ..." is bad news of any part.

A sentence that was never said may be like no sentence of its own act and still like those of other acts that
have the same *role* (`exact/learning/roles.py`: they tell as much, of something else). So a second regression
learns roles, from the sentences of all acts of a role. It has those words only that are said after different
acts of the other side: what is said after one alone names what was asked, and cannot tell elsewhere.

As in `gate.py`, words x are evidence at a heat, softmax(h (logits - ln P(role))) P(role) / P(role). Here
sentences may be few, and one more or less decides which heat is best. So none is chosen: each is believed as
far as sentences that were left out are likely at it, beside the evidence that the acts' own words are,

    P(x | act) ~ gate(x, act) sum over h of P(h | left out) evidence_h(x, role of act)

from the same belief in each heat beforehand (MacKay 1992 averages over what a fit leaves open likewise).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse
from scipy.special import softmax

from turnwise.data.acts.gate import (
    FEW,
    FOLDS,
    HEATS,
    Gate,
    evidence_at,
    fitted,
    left_out,
    shares_of,
    weights_of,
)

MOST_FOLDS = 16
MANY = 2000
"""sentences over folds, about: few sentences are left out one by one, since what is left must be like all of
them; many take time"""
FOLLOWS = 0.1
"""share of an act's utterances that follow an act of the other side, from which on it is said to follow it"""


@dataclass(frozen=True)
class Roles:
    """`weights` [D, R] and `constants` [R] of the regression, `shares` [R] of the roles in it.

    `belief` [heats]: P(heat | left out). `of` [acts]: the role of each act, -1 if it has none.
    """

    weights: np.ndarray
    constants: np.ndarray
    shares: np.ndarray
    belief: np.ndarray
    of: np.ndarray

    @classmethod
    def learn(
        cls,
        vectors: Any,
        acts: np.ndarray,
        counts: np.ndarray,
        gate: Gate,
        of: np.ndarray,
        follows: np.ndarray,
        seed: int,
    ) -> Roles | None:
        """From sentences [M, D], their acts and counts, and roles `of` the acts, -1 for none.

        `gate` reads the same acts. `follows` [A, acts]: how often each act followed each of the other side.
        None if there is nothing to gain: no role has several acts, there is but one role, or few sentences.
        """
        of = np.asarray(of, np.int64)
        size = int(of.max(initial=-1)) + 1
        rows = np.flatnonzero(of[acts] >= 0)
        shared = max(np.bincount(of[of >= 0], minlength=1)) > 1
        if not shared or len(np.unique(of[acts[rows]])) < 2 or len(rows) < FEW:
            return None
        general = _times(vectors, _general(vectors, acts, follows))
        roles, said, weights = of[acts[rows]], counts[rows], weights_of(counts[rows])
        folds = int(np.clip(MANY // len(rows), FOLDS, MOST_FOLDS))
        logits = left_out(general[rows], roles, said, size, seed, folds=folds)
        shares = shares_of(roles, weights, size)
        known = np.ones((len(rows), len(of)))
        if gate.heat > 0:
            own = left_out(vectors, acts, counts, len(gate.shares), seed)[rows]
            known[:, : len(gate.shares)] = evidence_at(own, gate.heat, gate.shares)
        prior = np.where(of >= 0, np.bincount(acts[rows], weights=weights, minlength=len(of)) + 1.0, 0.0)
        scores = [
            _explained(known * prior * evidence_at(logits, h, shares)[:, of], acts[rows], weights)
            for h in HEATS
        ]
        belief = softmax(np.array(scores))
        if belief[0] > 1 - 1e-6:
            return None
        weight, constants = fitted(general[rows], roles, weights, size)
        return cls(weight, constants, shares, belief, of)

    def evidence(self, vectors: Any) -> np.ndarray:
        """[n, acts], P(words | act's role) up to a factor in each row; 1 for acts that have no role."""
        logits = np.asarray(vectors @ self.weights) + self.constants
        told = sum(b * evidence_at(logits, h, self.shares) for h, b in zip(HEATS, self.belief, strict=True))
        return np.where(self.of >= 0, np.asarray(told)[:, self.of], 1.0)

    def arrays(self) -> dict[str, np.ndarray]:
        """All of it by name; `Roles(**arrays)` makes it again."""
        return {name: getattr(self, name) for name in NAMES}


NAMES = ("weights", "constants", "shares", "belief", "of")


def _explained(chances: np.ndarray, acts: np.ndarray, weights: np.ndarray) -> float:
    """The weighted log-likelihood of acts [n], given what rows [n, acts] are in proportion to."""
    own = chances[np.arange(len(acts)), acts] / chances.sum(1)
    return float((weights * np.log(np.maximum(own, 1e-12))).sum())


def _general(vectors: Any, acts: np.ndarray, follows: np.ndarray) -> np.ndarray:
    """[D] bool, words that are said after at least two acts of the other side. Dense numbers are no words."""
    if not sparse.issparse(vectors):
        return np.ones(vectors.shape[1], bool)
    share = follows / np.maximum(follows.sum(0), 1)
    after = (share >= FOLLOWS).astype(np.float32)[:, acts]  # [A, M]
    said = sparse.csr_matrix(vectors) > 0
    counts: Any = sparse.csr_matrix(after) @ said  # [A, D]
    return (counts.toarray() > 0).sum(0) >= 2


def _times(vectors: Any, kept: np.ndarray) -> Any:
    """The vectors with zeros in place of what is not kept. They stay shorter by it: what says much that is
    its own says little for its role."""
    if sparse.issparse(vectors):
        return sparse.csr_matrix(vectors @ sparse.diags(kept.astype(np.float32)))
    return vectors * kept
