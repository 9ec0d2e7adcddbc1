"""What the logs hold of a target policy: how many conversations speak for it, and for which of its acts none.

The effective sample size says how uneven the weights of the logged conversations are. It cannot say what the
logs do not hold: a target that half of the time does what was never done has even weights wherever it can be
weighed. `coverage` says that.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from turnwise.evaluation.estimates.foretelling.gains import Gain
from turnwise.evaluation.estimates.logged import LARGEST_RATIO


@dataclass(frozen=True)
class Evenness:
    """How far the weights of the logs are from all alike."""

    effective: float
    """effective sample size: as many equal weights would be worth as much; 0 if all weights are 0"""
    largest_share: float
    """of all weight, what the heaviest conversation (or cluster) holds; nan if all weights are 0"""
    mean: float = 1.0
    """mean weight of a conversation: 1 in expectation, unless the target does what the behaviour never does,
    or the behaviour's probabilities are wrong. What the behaviour does too seldom to be in the logs is
    missing in the mean, while all that is there looks even"""
    mean_error: float = 0.0
    """its standard error; infinite with one conversation or cluster"""


def evenness(log_weights: np.ndarray, clusters: np.ndarray | None = None) -> Evenness:
    """(sum w)^2 / sum w^2 (Kong 1992) and max w / sum w, from the logarithms of the weights w [B], in nats.

    With `clusters` [B] the weights are the sums over clusters: what is independent counts. Weights 1, 1, 2:
    16 / 6 = 2.67 and 1/2, mean 4/3 and its error sqrt((2/3) / (3 * 2)) = 1/3. ValueError for nan or +inf.
    """
    logs = np.asarray(log_weights, dtype=np.float64)
    if logs.ndim != 1 or not logs.size or np.isnan(logs).any() or np.isposinf(logs).any():
        raise ValueError(f"log_weights of shape {logs.shape}; expected one a conversation, below infinity")
    if np.isneginf(logs).all():
        return Evenness(0.0, np.nan, 0.0, 0.0 if len(logs) > 1 else np.inf)
    top, w = logs.max(), np.exp(logs - logs.max())
    own = np.ones(len(w))
    if clusters is not None:
        index = np.unique(clusters, return_inverse=True)[1]
        w, own = np.bincount(index, w), np.bincount(index).astype(float)
    unit = np.exp(min(top, np.log(LARGEST_RATIO)))  # held where nothing could tell the difference
    mean, C = w.sum() / len(logs), len(w)
    apart = w - mean * own  # of a cluster: what its conversations are above the mean, together
    error = np.sqrt((apart**2).sum() * C / (C - 1)) / len(logs) if C > 1 else np.inf
    return Evenness(
        float(w.sum() ** 2 / (w**2).sum()), float(w.max() / w.sum()), float(unit * mean), float(unit * error)
    )


@dataclass(frozen=True)
class Unseen:
    """An act of the target that the logs do not hold where the target takes it."""

    decision: int
    """counted from 0"""
    act: int
    mass: float
    """share of the conversations at this decision in which the target does this where the logs never do"""
    elsewhere: int
    """how often it was logged at this decision at all, after histories of other kinds"""


@dataclass(frozen=True)
class Coverage:
    """The mass of the target's acts that the logs hold in like histories."""

    overall: float
    """over all decisions"""
    per_decision: np.ndarray
    """[A]; nan if no conversation goes on so long"""
    running: np.ndarray
    """[A] share of conversations that go on so long"""
    of_logged: float
    """the same as `overall` for what was logged itself: what the kinds of histories, and the number of
    conversations, let any policy reach"""
    of_logged_per_decision: np.ndarray
    """[A]"""
    nowhere: float
    """mass of the acts that fewer than `at_least` other conversations hold at all, after whatever history"""
    unseen: tuple[Unseen, ...]
    """what is missing, the most first"""
    error: float = 0.0
    """standard error of `overall` for lack of draws, where the target's acts are drawn or counted in draws"""
    of_logged_nowhere: float = 0.0
    """the same as `nowhere` for what was logged itself, if acts are told apart so finely that the logged
    agent, too, does what no other conversation holds"""

    @property
    def least(self) -> int:
        """The decision with the smallest coverage."""
        return int(np.nanargmin(self.per_decision))


@dataclass(frozen=True)
class Evidence:
    """What the logs hold of one policy."""

    conversations: int
    """logged, or clusters of them"""
    evenness: Evenness
    coverage: Coverage | None
    """None if it was not measured: nothing is vouched for then"""
    interval: tuple[float, float]
    """95%, of the value"""
    returns: tuple[float, float]
    """lowest and highest logged return"""
    unit: str = "conversation"
    """what is independent, in the singular"""
    words: Gain | None = None
    """what the words of messages tell of what follows, beyond all that was exchanged as acts; None if that
    was not asked, or cannot matter"""

    @property
    def logs(self) -> str:
        """The logs, in words."""
        return f"the {self.conversations:,} logged {self.unit}s"


def in_share(share: float, error: float) -> str:
    """A coverage for people, with its 95% interval if it is known from replies alone: .8, error .05, is 80%
    (70% to 90%)."""
    if not error:
        return f"{share:.0%}"
    low, high = max(share - 1.96 * error, 0.0), min(share + 1.96 * error, 1.0)
    return f"{share:.0%} ({low:.0%} to {high:.0%} by the replies that were drawn)"


def coverage(
    probabilities: np.ndarray,
    acts: np.ndarray,
    histories: np.ndarray,
    mask: np.ndarray,
    *,
    log_ratios: np.ndarray | None = None,
    clusters: np.ndarray | None = None,
    at_least: int = 1,
) -> Coverage:
    """Share of what the target would do, at the logged decisions, that other conversations hold.

        c_bk = sum_a target(a | h_bk) 1{at_least others did a after a history like h_bk}

    `probabilities` [B, A, K] of the target for K acts, `acts` [B, A] logged, `histories` [B, A] int: equal
    numbers are like histories (a state of a learnt model, or the turn and the last acts of both sides). A
    conversation does not speak for itself, nor a cluster (`clusters` [B]) for its own: what was logged once
    is logged in no other. If no other conversation has a history of that kind, nothing is covered. So finer
    kinds leave less covered, of the logged agent too: `of_logged` is what to compare with.

    Histories count as often as they were logged. With `log_ratios` [B, A] (log rho_{1:k}, of `Logged`) they
    count as often as the target would come there: rho_{1:k-1}, in weights that sum to 1 at each decision.
    """
    p, mask = np.asarray(probabilities, dtype=np.float64), np.asarray(mask, dtype=bool)
    _check(p, acts, histories, mask)
    share, running = shares(mask, log_ratios)  # [B, A], [A]
    here, anywhere = (
        _others(np.asarray(acts), kinds, mask, clusters, p.shape[2]) >= at_least
        for kinds in (np.asarray(histories), np.zeros(mask.shape, dtype=int))
    )  # [B, A, K]
    missing = np.where(mask[:, :, None] & ~here, p, 0.0)
    per_turn = np.einsum("ba,bak->ak", share, missing)  # [A, K]
    new = np.einsum("ba,bak->a", share, np.where(anywhere, 0.0, missing))
    each = np.where(running > 0, 1 - per_turn.sum(1), np.nan)
    overall = float(np.nansum(running * each) / running.sum())
    logged = np.stack(
        [np.bincount(np.asarray(acts)[mask[:, k], k], minlength=p.shape[2]) for k in range(len(each))]
    )
    order = np.argsort(-per_turn, axis=None, kind="stable")[: int((per_turn > 0).sum())]
    unseen = (
        Unseen(int(k), int(a), float(per_turn[k, a]), int(logged[k, a]))
        for k, a in zip(*np.unravel_index(order, per_turn.shape), strict=True)
    )
    shared = np.take_along_axis(here, np.where(mask, acts, 0)[:, :, None], axis=2)[:, :, 0] & mask
    logged_each = shared.sum(0) / np.where(mask.any(0), mask.sum(0), np.nan)
    return Coverage(
        overall=overall,
        per_decision=each,
        running=running,
        of_logged=float(shared.sum() / mask.sum()),
        of_logged_per_decision=logged_each,
        nowhere=float(running @ new / running.sum()),
        unseen=tuple(unseen),
    )


def _check(p: np.ndarray, acts: np.ndarray, histories: np.ndarray, mask: np.ndarray) -> None:
    if (
        p.ndim != 3
        or not mask.any()
        or not p.shape[:2] == np.shape(acts) == np.shape(histories) == mask.shape
    ):
        shapes = f"{p.shape}, {np.shape(acts)}, {np.shape(histories)}, {mask.shape}"
        raise ValueError(f"shapes {shapes}; expected [B, A, K], then [B, A] of acts, histories and mask")
    off = np.abs(np.where(mask, p.sum(2), 1.0) - 1)
    if not off.max() < 1e-4 or (p[mask] < 0).any():
        raise ValueError("probabilities do not sum to 1 at every decision")
    inside = (np.asarray(acts)[mask] >= 0) & (np.asarray(acts)[mask] < p.shape[2])
    if not inside.all():
        raise ValueError(f"an act is outside 0 to {p.shape[2] - 1}")


def shares(mask: np.ndarray, log_ratios: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """What each conversation counts at each decision, columns that sum to 1 (or 0) [B, A]; and the share of
    conversations that go on so long [A]."""
    before = np.zeros(mask.shape)
    if log_ratios is not None:
        before[:, 1:] = np.asarray(log_ratios, dtype=np.float64)[:, :-1]
    top = before.max(axis=0)
    w = np.exp(before - np.where(np.isfinite(top), top, 0.0))
    # An episode that has ended keeps its weight: all of them together say how many are still running.
    everyone, w = w.sum(axis=0), np.where(mask, w, 0.0)
    there = w.sum(axis=0)
    return w / np.where(there > 0, there, 1.0), there / np.where(everyone > 0, everyone, 1.0)


def _others(
    acts: np.ndarray, histories: np.ndarray, mask: np.ndarray, clusters: np.ndarray | None, size: int
) -> np.ndarray:
    """[B, A, K]: other conversations (clusters) in which each act was logged after a like history."""
    who = np.arange(len(mask)) if clusters is None else np.unique(clusters, return_inverse=True)[1]
    kinds, kind = np.unique(np.where(mask, histories, histories[mask][0]), return_inverse=True)
    kind = kind.reshape(mask.shape)
    cell = kind * size + np.where(mask, acts, 0)  # [B, A]
    cells = len(kinds) * size
    held = np.unique((who[:, None] * cells + cell)[mask])  # each cluster counts once
    total = np.bincount(held % cells, minlength=cells)
    all_acts = kind[:, :, None] * size + np.arange(size)  # [B, A, K]
    own = np.isin(who[:, None, None] * cells + all_acts, held)
    return total[all_acts] - own
