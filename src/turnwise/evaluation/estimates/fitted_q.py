"""Fitted Q evaluation where histories are countable: values of the target by backward induction on logs.

At each decision k, from the last one back to the first, with h a key of the history and m the
`prior`, which the logs may say themselves:

    y_k     = r_k + g V(h_{k+1}),   V(h_{k+1}) = sum_a pi(a | history) Q_{k+1}(h_{k+1}, a)
    Q_k(h, a) = (sum of y_k over logs with h and a + m Q_k(parent of h, a)) / (their number + m)

Le et al. 2019, arXiv:1903.08738, algorithm 3, with tables instead of a regression. A table per decision makes
one pass the exact fixed point, without iteration. Histories have several keys, from long to short: what too
few conversations have gone through is drawn towards what is known of the shorter history, and what none has
gone through is that. Behind all keys stands the decision's number alone, first with the act, then without.

With the whole history as key, m = 0 and endless logs, Q is the target's own. With shorter keys it is what
fitted Q evaluation makes of the logs if histories that share a key are taken for one state.

One conversation asks and then offers, rewards 0, 1; another offers at once, reward -1; the target does both
with probability 1/2, one key, m = 0. Q_2(offer) = 1, and so is Q_2(ask), of which the logs say nothing: the
mean at decision 2. So V_2 = 1, Q_1(ask) = 0 + 1, Q_1(offer) = -1, V_1 = 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Values(NamedTuple):
    """A model's values of logged conversations under the target, in the units of the task; 0 behind the end.

    `q` [B, A] of what was done and `v` [B, A] of each history, as `logged.Logged` takes them; `final` [B] of
    the state after the last decision, 0 after a true end, as `logged.bootstrapped` takes it.
    """

    q: np.ndarray
    v: np.ndarray
    final: np.ndarray


@dataclass(frozen=True)
class Played:
    """`B` logged conversations of up to `A` decisions among `K` acts, and what the target would do in them.

    Raises ValueError for shapes that differ, acts out of range, a mask that is no suffix, rewards that are
    not finite, and probabilities that do not sum to one where the target has to choose: at every decision,
    and after the last one of a conversation that did not truly end.
    """

    acts: np.ndarray
    """[B, A] int, what was done"""
    rewards: np.ndarray
    """[B, A], in the units of the task"""
    mask: np.ndarray
    """[B, A] bool, True at real decisions and False only as a suffix"""
    target: np.ndarray
    """[B, A+1, K], probability of each act under the target at every decision and in the final state"""
    terminated: np.ndarray
    """[B] bool, whether the conversation truly ended, else it was cut"""
    next_known: np.ndarray | None = None
    """[B] bool, whether the state after the last decision was logged; None: it always was"""

    def __post_init__(self) -> None:
        mask = np.asarray(self.mask)
        if mask.ndim != 2 or mask.dtype != bool or not mask.size or not mask[:, 0].all():
            raise ValueError(f"mask is {mask.dtype} of shape {mask.shape}; expected booleans [B, A] of "
                             "conversations with a decision each")  # fmt: skip
        if (mask[:, 1:] & ~mask[:, :-1]).any():
            raise ValueError("a mask is True behind a False; expected False as a suffix")
        B, A = mask.shape
        known = np.ones(B, bool) if self.next_known is None else np.asarray(self.next_known, bool)
        target = np.asarray(self.target, np.float64)
        shapes = {
            "acts": (np.shape(self.acts), (B, A)),
            "rewards": (np.shape(self.rewards), (B, A)),
            "terminated": (np.shape(self.terminated), (B,)),
            "next_known": (known.shape, (B,)),
            "target": (target.shape[:2], (B, A + 1)),
        }
        for name, (found, expected) in shapes.items():
            if found != expected:
                raise ValueError(f"{name} begins with the shape {found}; expected {expected}")
        rewards = np.where(mask, np.asarray(self.rewards, np.float64), 0.0)
        acts = np.where(mask, np.asarray(self.acts), 0).astype(np.int64)
        if not np.isfinite(rewards).all():
            raise ValueError("a reward is not finite; expected numbers")
        if target.ndim != 3 or acts.min() < 0 or acts.max() >= target.shape[2]:
            raise ValueError(f"acts go from {acts.min()} to {acts.max()}; expected 0 to K - 1, with target "
                             f"[B, A+1, K] of shape {target.shape}")  # fmt: skip
        set_ = object.__setattr__
        for name, value in (("mask", mask), ("rewards", rewards), ("acts", acts), ("next_known", known)):
            set_(self, name, value)
        set_(self, "terminated", np.asarray(self.terminated, bool))
        asked = self.asked
        target = np.where(asked[..., None], target, 0.0)
        wrong = asked & ~((target >= 0).all(-1) & (np.abs(target.sum(-1) - 1) < 1e-4))
        if wrong.any():
            b, k = np.argwhere(wrong)[0]
            said = f"sums to {target[b, k].sum():.6g} and has {target[b, k].min():.3g} as its least"
            raise ValueError(f"target[{b}, {k}] {said}; expected probabilities")
        set_(self, "target", target)

    @property
    def lengths(self) -> np.ndarray:
        """[B], decisions of each conversation."""
        return self.mask.sum(1)

    @property
    def asked(self) -> np.ndarray:
        """[B, A+1] bool, where the target has to choose: decisions, and the known state behind a cut."""
        after = np.zeros((len(self.mask), self.mask.shape[1] + 1), bool)
        after[:, :-1] = self.mask
        after[np.arange(len(after)), self.lengths] = ~self.terminated & self.known
        return after

    @property
    def known(self) -> np.ndarray:
        """[B] bool, `next_known`, or True."""
        assert self.next_known is not None  # made so on construction
        return self.next_known

    def some(self, index: np.ndarray) -> Played:
        """Those conversations alone, in that order."""
        return Played(
            *(
                x[index]
                for x in (self.acts, self.rewards, self.mask, self.target, self.terminated, self.known)
            )
        )

    def valued(self, q: np.ndarray, discount: float) -> Values:
        """Values from a model's `q` [B, A+1, K] of every act, the final state included.

        Where the state behind a cut was never logged, the model's own word for it joins: what makes the last
        decision worth its q. The logs say nothing against it, and nothing for it.
        """
        B, A = self.mask.shape
        v = (self.target * q).sum(-1)  # [B, A+1]
        taken = np.take_along_axis(q[:, :A], self.acts[..., None], -1)[..., 0]
        rows, last = np.arange(B), self.lengths - 1
        final = np.where(self.terminated, 0.0, v[rows, last + 1])
        if discount > 0:
            implied = (taken[rows, last] - self.rewards[rows, last]) / discount
            final = np.where(self.terminated | self.known, final, implied)
        return Values(np.where(self.mask, taken, 0.0), np.where(self.mask, v[:, :A], 0.0), final)


@dataclass(frozen=True)
class TabularQ:
    """Tables of Q, a list of levels for each decision; made by `fit_tables`."""

    tables: tuple[tuple[tuple[np.ndarray, np.ndarray], ...], ...]
    """by decision, from the shortest key to the longest: (keys [N], sorted, and Q [N, K])"""
    base: np.ndarray
    """[A+1, K], Q by decision alone; 0 behind the last decision that was ever logged"""
    discount: float

    def q(self, keys: Sequence[np.ndarray]) -> np.ndarray:
        """[B, A+1, K], every act at every decision; `keys` are arrays [B, A+1], the longest history first.

        A history that the logs did not hold has the values of the longest part of it that they did.
        """
        B, A1 = keys[0].shape
        found = np.zeros((B, A1, self.base.shape[1]))
        for k in range(min(A1, len(self.base))):
            found[:, k] = self.at(k, [level[:, k] for level in keys])
        return found

    def at(self, k: int, keys: Sequence[np.ndarray]) -> np.ndarray:
        """[B, K], every act at decision `k`; `keys` are arrays [B]."""
        return looked_up(self.tables[k], self.base[k], keys)

    def values(self, keys: Sequence[np.ndarray], played: Played) -> Values:
        """Values of conversations, which may be others than those of the fit."""
        _expect_keys(keys, played)
        return played.valued(self.q(keys), self.discount)


def fit_tables(
    keys: Sequence[np.ndarray],
    played: Played,
    discount: float,
    *,
    prior: float | None = None,
    weights: np.ndarray | None = None,
) -> TabularQ:
    """Fitted Q evaluation in tables.

    `keys` [B, A+1] int name the history at each decision, the longest first: histories that
    share a key share all that come after it in the list (ValueError otherwise), as those of `turn_keys` do.
    `prior` is in conversations: a cell with so many is halfway between its own mean and its parent. None:
    what the logs say at each decision and length of key, the variance of y within cells by that of their true
    means around their parents (credibility, Bühlmann 1967; by moments, parents taken as known). `weights`
    [B], not negative, count each conversation so often; None counts each once. Shares in place of
    counts need a `prior` (ValueError).

    The last decision of a conversation whose next state is unknown teaches nothing.
    """
    _expect_keys(keys, played)
    B, A = played.mask.shape
    K = played.target.shape[2]
    counts = np.ones(B) if weights is None else np.asarray(weights, np.float64)
    if counts.shape != (B,) or not (np.isfinite(counts) & (counts >= 0)).all():
        raise ValueError(f"weights have the shape {counts.shape}; expected {B} numbers of 0 or more")
    if not ((prior is None or prior >= 0) and 0 <= discount <= 1):
        raise ValueError(f"prior is {prior}, discount {discount}; expected 0 or more, and 0 to 1")
    if prior is None and (counts != np.round(counts)).any():
        raise ValueError(
            "weights are no counts, which tell how noisy a mean is; expected a prior beside them"
        )
    lengths, rows = played.lengths, np.arange(B)
    learnt = played.mask.copy()
    learnt[rows, lengths - 1] &= played.terminated | played.known
    base = np.zeros((A + 1, K))
    tables: list[tuple[tuple[np.ndarray, np.ndarray], ...]] = [()] * (A + 1)
    after = np.zeros(B)  # V of the state that decision k led to
    for k in reversed(range(A + 1)):
        if k < A:
            ends = played.terminated & (lengths == k + 1)
            y = played.rewards[:, k] + discount * np.where(ends, 0.0, after)
            here = learnt[:, k] & (counts > 0)
            levels = [level[here, k] for level in keys]
            base[k], tables[k] = _cells(levels, played.acts[here, k], y[here], counts[here], K, prior)
        q = looked_up(tables[k], base[k], [level[:, k] for level in keys])
        after = (played.target[:, k] * q).sum(-1)
    return TabularQ(tuple(tables), base, float(discount))


def turn_keys(observations: np.ndarray, acts: np.ndarray, turns: int) -> list[np.ndarray]:
    """Keys of the last `turns` turns, then of one fewer, down to the last one: what `fit_tables` takes.

    `observations` [B, A+1] int are what was seen (the opening, then the answer to each act), `acts` [B, A]
    int, none below 0 (behind the end, anything). A turn is an act and its answer; where fewer have been, the
    opening is the first of them. Whole histories are `turns` = A + 1. Keys are names that hold among these
    conversations only: make them once for all, and then pick rows.
    """
    if turns < 1:
        raise ValueError(f"turns is {turns}; expected 1 or more")
    B, A1 = observations.shape
    if acts.shape != (B, A1 - 1):
        raise ValueError(f"acts have the shape {acts.shape}; expected {(B, A1 - 1)}")
    did = np.concatenate([np.full((B, 1), -1), np.maximum(acts, 0)], axis=1)
    last = _named(did, observations)
    keys = [last]
    for _ in range(turns - 1):
        # The key of so many turns, one decision ago, with the last turn behind it.
        before = np.concatenate([np.full((B, 1), -1), keys[0][:, :-1]], axis=1)
        keys.insert(0, _named(before, last))
    return keys


def _named(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """A number for each pair of numbers, 0 and up."""
    pairs = np.stack([a.ravel(), b.ravel()], axis=1)
    return np.unique(pairs, axis=0, return_inverse=True)[1].reshape(a.shape)


def _cells(
    levels: Sequence[np.ndarray],
    acts: np.ndarray,
    y: np.ndarray,
    counts: np.ndarray,
    K: int,
    prior: float | None,
) -> tuple[np.ndarray, tuple[tuple[np.ndarray, np.ndarray], ...]]:
    """Q of one decision without a key [K], and its tables from the shortest key to the longest."""
    if not len(y):
        return np.zeros(K), ()
    mean = np.full((1, K), counts @ y / counts.sum())
    base = _drawn(np.zeros(len(y), np.int64), acts, y, counts, mean, prior)
    parent, found = np.repeat(base, len(y), axis=0), []  # [N, K], by conversation
    shorter = np.zeros(len(y), np.int64)
    for level in reversed(levels):
        names, first, cell = np.unique(level, return_index=True, return_inverse=True)
        if not np.array_equal(shorter, shorter[first][cell]):
            raise ValueError("histories share a long key and not the shorter one; expected keys that nest")
        table = _drawn(cell, acts, y, counts, parent[first], prior)
        found.append((names, table))
        parent, shorter = table[cell], level
    return base[0], tuple(found)


def _drawn(
    cell: np.ndarray,
    acts: np.ndarray,
    y: np.ndarray,
    counts: np.ndarray,
    parent: np.ndarray,
    prior: float | None,
) -> np.ndarray:
    """[N, K], means of y by cell and act, drawn towards `parent` [N, K], and that where there is nothing."""
    N, K = parent.shape
    place, before = cell * K + acts, parent.ravel()
    n = np.bincount(place, counts, N * K)
    total = np.bincount(place, counts * y, N * K)
    mean = np.where(n > 0, total / np.where(n > 0, n, 1.0), before)
    if prior is None:
        prior = _noise_to_signal(float(counts @ (y - mean[place]) ** 2), n, mean - before)
    share = np.where(n > 0, n / np.where(n > 0, n + prior, 1.0), 0.0)  # 0 for an endless prior
    return (before + share * (mean - before)).reshape(N, K)


def _noise_to_signal(within: float, n: np.ndarray, apart: np.ndarray) -> float:
    """Variance within cells, from their sum of squares, by the variance of true means around their parents.

    Of n conversations per cell, whose means are `apart` from their parents. Infinite where cells are no
    farther apart than their noise lets them be, or where none has two conversations to tell the noise by.
    """
    cells, N = int((n > 0).sum()), float(n.sum())
    if cells >= N:
        return float("inf")
    noise = within / (N - cells)
    signal = (float(n @ apart**2) - cells * noise) / N
    return noise / signal if signal > 0 else float("inf")


def looked_up(
    tables: Sequence[tuple[np.ndarray, np.ndarray]], base: np.ndarray, keys: Sequence[np.ndarray]
) -> np.ndarray:
    """[B, K], the values of the longest key that a table has."""
    found = np.repeat(base[None], len(keys[0]), axis=0)
    for (names, table), asked in zip(tables, reversed(keys), strict=False):
        place = np.minimum(np.searchsorted(names, asked), len(names) - 1)
        known = names[place] == asked
        found[known] = table[place[known]]
    return found


def _expect_keys(keys: Sequence[np.ndarray], played: Played) -> None:
    shape = (played.mask.shape[0], played.mask.shape[1] + 1)
    if not keys:
        raise ValueError("there are no keys; expected one or more")
    for key in keys:
        if key.shape != shape or key.dtype.kind not in "iu":
            raise ValueError(f"keys are {key.dtype} of shape {key.shape}; expected integers {shape}")
