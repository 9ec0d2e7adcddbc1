"""What an estimate of a policy's value from logs stands on: rewards, and two log-probabilities per decision.

The *behaviour* is the policy that talked in the logs, the *target* the one whose value is asked for. A
decision is a turn, an act, a token or a step. Everything is on the decision axis, `[B, A]`, in float64.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

LARGEST_RATIO = 1e100
"""A ratio that is used as a number is held here: what follows could not tell the difference, its square is
still a number, and infinity times a reward of 0 is none. Logarithms of ratios are held nowhere."""
_ABOVE_ZERO = 1e-6
"""how far a log-probability may exceed 0 (and is then 0): a log-softmax in float32 does by 1e-7"""


@dataclass(frozen=True)
class Logged:
    """`B` logged episodes (conversations) of up to `A` decisions; values behind `mask` are never read.

    One episode: decisions with ratios 2 and 1/2, rewards 1 and 3, discount .9. Then rho_{1:1} = 2,
    rho_{1:2} = 1, and the return is 1 + .9 * 3 = 3.7.

    Raises ValueError for shapes that differ; numbers that are not finite, log-probabilities above 0, a
    behaviour that gave what it did probability 0; an episode without decisions, a mask that is no suffix; a
    discount outside 0 to 1; one of `q` and `v` without the other.
    """

    rewards: np.ndarray
    """[B, A], the reward that follows each decision, in the units of the task"""
    mask: np.ndarray
    """[B, A] bool, True at real decisions and False only as a suffix"""
    discount: float
    """per decision, from 0 to 1"""
    logp: np.ndarray
    """[B, A], log-probability of the logged action under the target, in nats; -inf if it never takes it"""
    behavior_logp: np.ndarray
    """[B, A], log-probability of the logged action under the behaviour, in nats"""
    q: np.ndarray | None = None
    """[B, A], a model's value under the target of the logged action after the logged history: its
    expectation of the discounted return from this decision on, as seen from this decision"""
    v: np.ndarray | None = None
    """[B, A], the expectation of the model's q over the target's actions at each decision"""

    def __post_init__(self) -> None:
        mask = np.asarray(self.mask)
        if mask.ndim != 2 or mask.dtype != bool or not mask.size:
            raise ValueError(f"mask is {mask.dtype} of shape {mask.shape}; expected booleans [B, A]")
        if not mask[:, 0].all():
            raise ValueError(f"episode {int(np.argmin(mask[:, 0]))} has no decision; expected at least one")
        holes = (mask[:, 1:] & ~mask[:, :-1]).any(1)
        if holes.any():
            raise ValueError(
                f"mask of episode {int(np.argmax(holes))} is True behind a False; expected False as a suffix"
            )
        if not 0 <= self.discount <= 1:
            raise ValueError(f"discount is {self.discount}; expected a number from 0 to 1")
        if (self.q is None) != (self.v is None):
            raise ValueError("only one of q and v is given; expected both or neither")
        set_ = object.__setattr__
        set_(self, "mask", mask)
        for name in ("rewards", "q", "v"):
            if getattr(self, name) is not None:
                set_(self, name, _numbers(name, getattr(self, name), mask))
        set_(self, "logp", _log_probabilities("logp", self.logp, mask, never=True))
        set_(self, "behavior_logp", _log_probabilities("behavior_logp", self.behavior_logp, mask))

    @cached_property
    def log_ratios(self) -> np.ndarray:
        """[B, A], log rho_{1:k} = sum_{i<=k} logp_i - behavior_logp_i; an episode that has ended keeps its
        last one, as if both policies had then but one thing to do; -inf from where the target would have
        parted."""
        return np.cumsum(self.logp - self.behavior_logp, axis=1)

    @cached_property
    def log_weights(self) -> np.ndarray:
        """[B], log rho_{1:A}: how much likelier the whole episode's decisions are under the target."""
        return self.log_ratios[:, -1]

    @cached_property
    def ratios(self) -> np.ndarray:
        """[B, A], rho_{1:k}, at most `LARGEST_RATIO`."""
        return np.exp(np.minimum(self.log_ratios, np.log(LARGEST_RATIO)))

    @cached_property
    def scaled_ratios(self) -> np.ndarray:
        """[B, A], rho_{1:k} divided by the largest of its decision: for estimates in which it cancels, so
        that nothing overflows. 0 at a decision where no episode has any weight."""
        largest = self.log_ratios.max(0)
        return np.exp(self.log_ratios - np.where(np.isneginf(largest), 0.0, largest))

    @cached_property
    def powers(self) -> np.ndarray:
        """[A], discount^k."""
        return float(self.discount) ** np.arange(self.mask.shape[1])

    @cached_property
    def returns(self) -> np.ndarray:
        """[B], the discounted returns from the first decision."""
        return self.rewards @ self.powers

    @property
    def model(self) -> tuple[np.ndarray, np.ndarray]:
        """(q, v); ValueError if there is no model."""
        if self.q is None or self.v is None:
            raise ValueError("this estimate needs a model's values: expected q and v beside the rewards")
        return self.q, self.v


def bootstrapped(logged: Logged, final: np.ndarray) -> Logged:
    """The logs with what a cut took from them: `final` [B] is the target's value of the state after the last
    decision (0 where the episode truly ended), and joins the last reward, discounted once.

    Without this, an estimate is of the return up to the cut.
    """
    final = np.asarray(final, dtype=np.float64)
    if final.shape != (len(logged.mask),) or not np.isfinite(final).all():
        raise ValueError(f"final has shape {final.shape}; expected {len(logged.mask)} finite numbers")
    rewards = logged.rewards.copy()
    rewards[np.arange(len(rewards)), logged.mask.sum(1) - 1] += logged.discount * final
    return replace(logged, rewards=rewards)


def _numbers(name: str, given: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A float64 copy with zeros behind the mask; ValueError unless finite and of the mask's shape."""
    x = _masked(name, given, mask)
    wrong = ~np.isfinite(x)
    if wrong.any():
        raise ValueError(f"{_first(name, x, wrong)}; expected a finite number")
    return x


def _log_probabilities(name: str, given: np.ndarray, mask: np.ndarray, *, never: bool = False) -> np.ndarray:
    """As `_numbers`, at most 0; -inf is fine if `never`."""
    x = _masked(name, given, mask)
    if not never and np.isneginf(x).any():
        raise ValueError(
            f"{_first(name, x, np.isneginf(x))}: the behaviour gave probability 0 to what it did; "
            "expected a finite log-probability"
        )
    wrong = np.isnan(x) | (x > _ABOVE_ZERO)
    if wrong.any():
        raise ValueError(f"{_first(name, x, wrong)}; expected the logarithm of a probability, at most 0")
    return np.minimum(x, 0.0)


def _masked(name: str, given: np.ndarray, mask: np.ndarray) -> np.ndarray:
    x = np.asarray(given, dtype=np.float64)
    if x.shape != mask.shape:
        raise ValueError(f"{name} has shape {x.shape}; expected that of mask, {mask.shape}")
    return np.where(mask, x, 0.0)


def _first(name: str, x: np.ndarray, wrong: np.ndarray) -> str:
    b, k = np.argwhere(wrong)[0]
    return f"{name}[{b}, {k}] is {x[b, k]}"
