"""Desks whose true worth is known: who talks in logs, whose value is asked for, and logs without words."""

from __future__ import annotations

from functools import cache, cached_property
from typing import Any

import numpy as np
from judging import chances_of, fitted_values, frequencies

from turnwise.data.acts.talks import ActLogs, ActTalk
from turnwise.envs.tasks.helpdesk.acts_only import converse_without_words, mixed, optimal, tilted
from turnwise.envs.tasks.helpdesk.exact import Game, OptimalDesk, Policy, PolicyValues, behavior_acts
from turnwise.envs.tasks.helpdesk.rules import ACTS
from turnwise.evaluation.estimates.cross_fit import dealt
from turnwise.evaluation.estimates.fitted_q import Played, Values, turn_keys
from turnwise.evaluation.estimates.intervals import Intervals, jointly, studentised_intervals
from turnwise.evaluation.estimates.logged import Logged
from turnwise.evaluation.estimates.pointwise import Pointwise
from turnwise.evaluation.estimates.support import Evidence, coverage, evenness
from turnwise.evaluation.measures.exchange_network import exchange_network
from turnwise.rollout.acts.chooser import Prefix
from turnwise.rollout.acts.logged import chances

WORLDS = ("near-optimal", "whims", "many whims")
BETAS, RESAMPLES = (2, 4, 8, 16), 400
COINS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
"""shares of the plan at which a model is checked"""


@cache
def desk() -> OptimalDesk:
    """The best desk; its values are computed once."""
    return OptimalDesk()


def uniform(*_: Any) -> list[float]:
    """Any act."""
    return [0.125] * 8


def hasty(*_: Any) -> list[float]:
    """A fix at once, of any part."""
    return [0.0] * 4 + [0.25] * 4


@cache
def plan() -> Policy:
    """The best acts."""
    return cache(optimal(desk()))


@cache
def behavior_of(world: str) -> Policy:
    """Who talks in the logs."""
    return cache(tilted(16, desk())) if world == "near-optimal" else behavior_acts


@cache
def targets_of(world: str) -> dict[str, Policy]:
    """Whose value is asked for."""
    tilts = {f"beta {b}": cache(tilted(b, desk())) for b in BETAS}  # asked again in every set of logs
    if world != "near-optimal":
        return {**tilts, "plan": plan()}
    whims = {f"{share:.0%} whims": mixed(share, behavior_of(world), behavior_acts) for share in (0.1, 0.3)}
    others = {f"beta {b}": cache(tilted(b, desk())) for b in (12, 32)} | {"any act": uniform}
    return {k: v for k, v in tilts.items() if k != "beta 16"} | whims | others | {"fix at once": hasty}


@cache
def coins() -> dict[str, Policy]:
    """From the desk to the plan."""
    return {f"coin {t:g}": mixed(t, behavior_acts, plan()) for t in COINS[1:]}


@cache
def truth_of(world: str, name: str, reliability: float = 0.85) -> float:
    """The exact value of a target, of a coin or of the behaviour, also as another game would pay it."""
    known = {**targets_of(world), **coins(), "behaviour": behavior_of(world)}
    return PolicyValues(Game(reliability=reliability), known[name]).value()


class Case:
    """One set of logs, and what is asked of it."""

    def __init__(self, world: str, size: int, seed: int) -> None:
        self.world, self.size = world, size
        self.rng = np.random.default_rng((seed, size, WORLDS.index(world)))
        self.talks = converse_without_words(behavior_of(world), size, self.rng)
        self.behavior = self.talks.probabilities(behavior_of(world))
        returns = self.talks.rewards.sum(1)
        self.within = (float(returns.min()), float(returns.max()))

    @cached_property
    def keys(self) -> dict[str, list[np.ndarray]]:
        """What tables of fitted Q take for the state."""
        whole = turn_keys(self.talks.seen, self.talks.acts, self.talks.acts.shape[1] + 1)
        counts = np.pad(self.counts(), [(0, 0), (0, 1)])  # nothing is asked behind the end
        return {"histories": whole, "counts": [counts]}

    def logged(self, target: np.ndarray, behavior: np.ndarray | None = None) -> Logged:
        """The logs with probabilities [B, A, K] of a target; `behavior` [B, A] of what was done, if not the
        desk's own."""
        t = self.talks
        done = chances_of(self.behavior, t.acts, t.mask) if behavior is None else behavior
        with np.errstate(divide="ignore"):
            return Logged(t.rewards, t.mask, 1.0, np.log(chances_of(target, t.acts, t.mask)), np.log(done))

    def fitted(self, target: np.ndarray, keys: list[np.ndarray], seed: int) -> Values:
        """Values of the target, by tables that were fitted on the other half."""
        t, n = self.talks, self.size
        final = np.zeros((n, 1, target.shape[2]))
        played = Played(t.acts, t.rewards, t.mask, np.concatenate([target, final], 1), np.ones(n, bool))

        return fitted_values(played, keys, 1.0, seed)

    def estimated(self, kind: np.ndarray) -> np.ndarray:
        """[B, A], frequency of what was done, among histories of the same kind [B, A]; 1 behind the end."""
        return frequencies(kind, self.talks.acts, self.talks.mask, len(ACTS))

    def read(self, seed: int) -> np.ndarray:
        """[B, A], probability of what was done, by networks that read all that was exchanged: the mean of
        five, each of which has learnt from four fifths of the conversations. So estimates of the product."""
        t, size = self.talks, 2 * len(ACTS)
        nan = np.full(t.acts.shape[1], np.nan)
        talks = [
            ActTalk(0, a[m], 1 + 2 * a[m] + o[m], np.zeros(m.sum()), True, nan[m], nan[m])
            for a, o, m in zip(t.acts, t.broken, t.mask, strict=True)
        ]
        names = [str(a) for a in ACTS]
        logs = ActLogs(tuple(talks), tuple(names), tuple(map(str, range(1 + size))), ("hello",))
        prefixes = [Prefix.of(0, talk.acts[:k], talk.answers[:k]) for talk in talks for k in range(len(talk))]
        fold, p = dealt(len(talks), folds=5, seed=seed), np.zeros((len(prefixes), len(ACTS)))
        for f in range(5):
            learnt = [talks[i] for i in np.flatnonzero(fold != f)]
            p += chances(exchange_network(logs, learnt, seed=seed), prefixes, len(ACTS)) / 5
        found = np.ones(t.mask.shape)
        found[t.mask] = p[np.arange(len(p)), t.acts[t.mask]]
        return found

    def counts(self) -> np.ndarray:
        """[B, A], a number for each count of answers by part, and part tested last."""
        names = {s: i for i, s in enumerate(dict.fromkeys(x[:2] for x in self.talks.states))}
        return np.array([names[x[:2]] for x in self.talks.states])[self.talks.state]

    def evidence(self, target: np.ndarray, logged: Logged, low: float, high: float) -> Evidence:
        """What a verdict is made of."""
        t, even = self.talks, evenness(logged.log_weights)
        held = coverage(target, t.acts, t.before, t.mask, log_ratios=logged.log_ratios)
        return Evidence(self.size, even, held, (low, high), self.within)

    def intervals(self, estimates: list[Pointwise], **more: Any) -> Intervals:
        """Studentised intervals of several estimates of one policy each."""
        more = {"resamples": RESAMPLES, "within": self.within} | more
        return studentised_intervals(jointly(estimates), self.size, rng=self.rng, **more)
