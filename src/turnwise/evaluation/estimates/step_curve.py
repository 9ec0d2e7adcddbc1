"""The way from the behaviour to a policy, in steps: how far logs can follow.

What logs cannot say of a policy they may say of one that goes a part of the way. Two ways lead there, with
t from 0 (the behaviour) to 1 (the policy), at each decision over K acts:

    tilted    step(a) ~ behaviour(a)^(1 - t) policy(a)^t          the geometric mean
    mixed     step(a) = (1 - t) behaviour(a) + t policy(a)        a coin at each decision

If the policy is behaviour x exp(beta Q), a tilted step is the same with t beta: the step of the smallest KL
for its gain. A tilted step gives up what either of the two never does; a mixed step keeps everything that the
behaviour does, so its weights stay below (1 - t + t policy / behaviour) a decision, and it can always be
acted, by a coin.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from turnwise.evaluation.estimates.foretelling.gains import Gain
from turnwise.evaluation.estimates.logged import Logged

Way = Literal["tilted", "mixed"]

STEPS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""where a curve is drawn, unless told otherwise"""


@dataclass(frozen=True)
class StepPath:
    """From the behaviour to a policy, at the logged decisions.

    ValueError for shapes that differ, for probabilities that do not sum to 1 (to 1e-4), and if behaviour and
    policy have no act in common at a decision of a tilted path.
    """

    behavior_logp: np.ndarray
    """[B, A, K], in nats; -inf for an act that is never taken"""
    policy_logp: np.ndarray
    """[B, A, K]"""
    mask: np.ndarray
    """[B, A] bool"""
    way: Way = "tilted"

    def __post_init__(self) -> None:
        object.__setattr__(self, "mask", np.asarray(self.mask, dtype=bool))
        for name in ("behavior_logp", "policy_logp"):
            x = np.asarray(getattr(self, name), dtype=np.float64)
            if x.ndim != 3 or x.shape[:2] != np.shape(self.mask):
                raise ValueError(
                    f"{name} of shape {x.shape}; expected [B, A, K] beside mask {np.shape(self.mask)}"
                )
            off = np.abs(np.exp(x[self.mask]).sum(axis=1) - 1)
            if not off.max(initial=0.0) < 1e-4:
                raise ValueError(f"{name}: probabilities do not sum to 1 at every decision")
            object.__setattr__(self, name, x)
        if self.behavior_logp.shape != self.policy_logp.shape:
            raise ValueError(
                f"policy_logp of shape {self.policy_logp.shape}; expected {self.behavior_logp.shape}"
            )
        if self.way not in ("tilted", "mixed"):
            raise ValueError(f"way is {self.way!r}; expected tilted or mixed")
        common = np.any(np.isfinite(self.behavior_logp + self.policy_logp), axis=2)
        if self.way == "tilted" and not common[self.mask].all():
            b, k = np.argwhere(np.logical_and(self.mask, ~common))[0]
            raise ValueError(
                f"behaviour and policy have no act in common at decision {k} of episode {b}: "
                "there is no tilted path, only a mixed one"
            )

    def at(self, t: float) -> np.ndarray:
        """[B, A, K], log-probabilities of the step t; both ends are exact, and so is what is never done."""
        if not 0 <= t <= 1:
            raise ValueError(f"t is {t}; expected a number from 0 to 1")
        # The ends are returned as they are: 0 times -inf is no number.
        if t in (0, 1):
            return (self.behavior_logp, self.policy_logp)[int(t)]
        if self.way == "mixed":
            return np.logaddexp(self.behavior_logp + np.log1p(-t), self.policy_logp + np.log(t))
        x = (1 - t) * self.behavior_logp + t * self.policy_logp
        x = np.where(self.mask[:, :, None], x, 0.0)  # padding may have no act in common
        return x - np.logaddexp.reduce(x, axis=2, keepdims=True)

    def logged(self, t: float, acts: np.ndarray) -> np.ndarray:
        """[B, A], log-probability of the logged `acts` [B, A] at the step t; 0 where there is no decision."""
        index = np.where(self.mask, acts, 0)[:, :, None]
        return np.where(self.mask, np.take_along_axis(self.at(t), index, axis=2)[:, :, 0], 0.0)

    def distance(self, t: float) -> float:
        """Nats a conversation: KL(step || behaviour) summed over its decisions, on average over the logs.

        It is taken at logged histories, so it is the divergence of whole conversations only near t = 0. It
        grows with t, and is infinite if the step does what the behaviour never does.
        """
        step = self.at(t)
        p = np.where(self.mask[:, :, None], np.exp(step), 0.0)
        # 0 log 0 = 0: of an act that is not taken nothing counts.
        with np.errstate(invalid="ignore"):
            terms = np.where(p > 0, p * (step - self.behavior_logp), 0.0)
        return float(terms.sum(axis=(1, 2)).mean())


def mixed(logged: Logged, t: float) -> Logged:
    """The logs as the mixed step t from the logged agent to their target sees them; 0 is that agent, exactly.

    A coin needs no model of the agent: what it did has the probability that weights are made of, and the
    value of what it would do is, on average, that of what it did.
    """
    logp = logged.logp if t else logged.behavior_logp
    if 0 < t < 1:
        logp = np.logaddexp(logged.behavior_logp + np.log1p(-t), logged.logp + np.log(t))
    q, v = logged.q, logged.v
    return replace(
        logged,
        logp=np.where(logged.mask, logp, 0.0),
        v=None if q is None or v is None else (1 - t) * q + t * v,
    )


def mixed_messages(logged: Logged, t: float, first: np.ndarray) -> Logged:
    """`mixed` with a coin for each message, whose tokens are the decisions; `first` [B, A] bool begin one.

        step(x_k | x_<k) = M_k / M_{k-1},   M_k = (1 - t) behaviour(x_1..x_k) + t policy(x_1..x_k)

    within a message: what was said of it says by and by which of the two is speaking. Whole messages are as
    probable as with `mixed` of messages.
    """
    if t in (0, 1):
        return mixed(logged, t)
    weights = np.log1p(-t), np.log(t)
    both = [logged.behavior_logp, logged.logp]
    found, so_far, before = np.zeros(logged.mask.shape), [np.zeros(len(first))] * 2, np.zeros(len(first))
    for k in range(first.shape[1]):
        so_far = [np.where(first[:, k], 0.0, x) + logp[:, k] for x, logp in zip(so_far, both, strict=True)]
        whole = np.logaddexp(*(w + x for w, x in zip(weights, so_far, strict=True)))
        found[:, k] = np.where(logged.mask[:, k], whole - np.where(first[:, k], 0.0, before), 0.0)
        before = whole
    return replace(mixed(logged, t), logp=np.minimum(found, 0.0))


def logged_distance(logged: Logged) -> float:
    """Nats a conversation between target and behaviour, from what was logged alone (`StepPath.distance`).

        mean over conversations of sum_k f(rho_k),   f(x) = x ln x - x + 1,   rho_k of one decision

    Its expectation over logs is the KL of each decision at logged histories, if the behaviour sometimes does
    all that the target does; f is never negative, as the ln alone would be of a single ratio.
    """
    log = np.minimum(logged.logp - logged.behavior_logp, np.log(1e100))
    ratio = np.exp(log)
    terms = ratio * np.where(np.isneginf(log), 0.0, log) - ratio + 1
    return float(np.where(logged.mask, terms, 0.0).sum(1).mean())


def farthest(
    vouches: Callable[[float], bool], steps: Sequence[float] = STEPS, *, halvings: int = 0
) -> float | None:
    """The farthest step that `vouches`, walking out from the behaviour: None if the first one does not.

    A step behind one that fails is not asked: in noise, one of many would pass. `halvings`: how often the gap
    to the first that fails is halved; each costs one question.
    """
    steps = sorted(steps)
    reached = next((i for i, t in enumerate(steps) if not vouches(t)), len(steps))
    if reached == 0:
        return None
    good = steps[reached - 1]
    if reached == len(steps):
        return good
    bad = steps[reached]
    for _ in range(halvings):
        middle = (good + bad) / 2
        good, bad = (middle, bad) if vouches(middle) else (good, middle)
    return good


@dataclass(frozen=True)
class ModelCheck:
    """Steps from the behaviour to the policy, as the model promises them and as the logs measure them."""

    promised: np.ndarray
    """[S] the model's value of each step"""
    measured: np.ndarray
    """[S] the estimate from the logs"""
    low: np.ndarray
    """[S] of the estimates' intervals, which hold for all steps at once"""
    high: np.ndarray
    """[S]"""
    vouched: np.ndarray
    """[S] bool, whether the logs vouch for the estimate of the step"""
    distances: np.ndarray
    """[S] nats from the behaviour (`StepPath.distance`)"""
    distance: float
    """of the policy itself"""
    spread: np.ndarray | None = None
    """[S] how far the promise may be off for lack of logs to learn from (half an interval); None for 0"""
    clone: float | None = None
    """what the model promises for a clone of the logged agent, less what that agent earned, if nobody knows
    how probable the logged acts were. It may be the clone's fault, so that `promised` is without it: a mixed
    step t is the clone in 1 - t of its turns, and that part of it is taken off"""
    history: Gain | None = None
    """what was exchanged before tells of each answer beyond what the model says; None if it was not asked"""
    words: Gain | None = None
    """what the words of the message tell of it"""

    @property
    def share(self) -> float:
        """How far of the way the logs vouch: from 0 (or no step) to 1."""
        reached = self.distances[self.vouched]
        if not len(reached):
            return 0.0
        return 1.0 if self.distance == 0 else float(reached.max() / self.distance)

    def off(self, material: float) -> tuple[int, float] | None:
        """(step, promise less estimate) where the model is worst among vouched steps, or None if it agrees.

        A promise is off if it is further from the estimate than the interval's end on that side, joined with
        the model's own spread (the root of the sum of squares), and than `material`.
        """
        away = self.promised - self.measured
        beyond = np.where(self.vouched, np.abs(away) - np.maximum(self._allowed(away), material), -np.inf)
        worst = int(np.argmax(beyond)) if len(beyond) else 0
        return (worst, float(away[worst])) if len(beyond) and beyond[worst] > 0 else None

    def sharpest(self, part: float, material: float) -> tuple[int, float, float]:
        """(step, error, limit) at the vouched step that tests the model best, apart from the behaviour.

        `error` is how far the promise may be off there unnoticed, and `limit` how far it may be so: a `part`
        of the promised gain over the nearest step, or `material` if that is more. nan if there is no step.
        """
        error = np.maximum(
            self._allowed(np.ones(len(self.promised))), self._allowed(-np.ones(len(self.promised)))
        )
        gain = np.abs(self.promised - self.promised[int(np.argmin(self.distances))])
        limit = np.maximum(part * gain, material)
        steps = np.flatnonzero(self.vouched & (self.distances > self.distances.min()))
        if not len(steps):
            return 0, np.nan, np.nan
        best = int(steps[np.argmin(error[steps] / limit[steps])])
        return best, float(error[best]), float(limit[best])

    def _allowed(self, away: np.ndarray) -> np.ndarray:
        """[S], what a difference of that sign may be by chance and by the model's own spread."""
        side = np.where(away > 0, self.high - self.measured, self.measured - self.low)
        return np.hypot(side, 0.0 if self.spread is None else self.spread)
