"""What the logged agent would do at each decision: as the logs say it, or as a model of it says.

The model of one half of the conversations speaks of the other half. Of those it knows nothing, so that what
it says of them is neither certain nor fitted to their outcomes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from turnwise.data.acts.talks import ActTalk
from turnwise.evaluation.measures.calibration import Bin, calibration_error, reliability
from turnwise.evaluation.measures.exchanges import exchange_acts
from turnwise.recipes.estimating.steps import ActSteps, logged_logp
from turnwise.rollout.acts.chooser import Chooser
from turnwise.rollout.acts.frequencies import timed_acts
from turnwise.rollout.acts.logged import chances
from turnwise.run.rehearsal import rehearsing

Source = Literal["logged", "partly logged", "estimated"]
MOST = 400_000
"""decisions beyond which no recurrent network is trained: it would take minutes"""
FEWEST = 20
"""conversations, at least, of which halves are made"""


@dataclass(frozen=True)
class Behaviour:
    """The policy that talked in the logs."""

    source: Source
    """of the log-probabilities of what was done"""
    model: str
    """what was estimated by"""
    probabilities: np.ndarray
    """[B, A, K], as the model says it. Steps begin at these: to bring them to what the log says of the one
    act that was done would make a policy of them that knows what will be done"""
    logp: np.ndarray
    """[B, A], of what was done: as the log says it, or else as the model does"""
    nats: dict[str, float]
    """by model: minus the mean log-probability of an act of the half that it has not learnt from"""
    logged_nats: float | None
    """the same of the probabilities that the logs themselves hold, where they do"""
    bins: list[Bin]
    """calibration of the model, over all acts of all decisions"""
    choosers: tuple[Chooser, ...]
    """the models of both halves"""
    missing: int
    """decisions of which the logs do not say how probable they were"""

    @property
    def facts(self) -> dict[str, Any]:
        """What a result says of it."""
        return {
            "source": self.source,
            "model": self.model,
            "nats": self.nats,
            "logged_nats": self.logged_nats,
            "calibration": [vars(b) for b in self.bins],
            "calibration_error": calibration_error(self.bins),
            "missing": self.missing,
        }


def behaviour_of(steps: ActSteps, half: np.ndarray, *, seed: int, quiet: bool) -> Behaviour:
    """Find the behaviour. `half` [B] is 0 or 1 for the two parts, each predicted by a model of the other.

    The model is the one that predicts unseen acts best: acts counted after the last answer and turn, or a
    regression on all that was exchanged; or a GRU, if the logs do not say how probable their acts were, so
    that weights are made of the model.
    """
    known = steps.mask & ~np.isnan(steps.act_logp)
    missing = int((steps.mask & ~known).sum())
    makers: dict[str, Callable[[Sequence[ActTalk]], Chooser]] = {
        "frequencies after the last answer, by turn": lambda talks: timed_acts(steps.logs, talks),
        "regression on all that was exchanged": lambda talks: exchange_acts(steps.logs, talks, seed=seed),
    }
    if missing and int(steps.mask.sum()) <= MOST and not rehearsing():
        from turnwise.evaluation.measures.next_acts import recurrent_clone

        makers["a recurrent network (GRU)"] = lambda talks: recurrent_clone(
            steps.logs, talks, seed=seed, quiet=quiet
        )
    found = {name: _by_halves(make, steps, half) for name, make in makers.items()}
    nats = {name: -float(logged_logp(p, steps.acts)[steps.mask].mean()) for name, (p, _) in found.items()}
    best = min(nats, key=lambda name: nats[name])
    p, choosers = found[best]
    done = np.arange(len(steps.logs.acts)) == steps.acts[:, :, None]  # [B, A, K]
    return Behaviour(
        source="logged" if not missing else "estimated" if not known.any() else "partly logged",
        model=best,
        probabilities=p,
        logp=np.where(known, steps.act_logp, np.where(steps.mask, logged_logp(p, steps.acts), 0.0)),
        nats=nats,
        logged_nats=-float(steps.act_logp[known].mean()) if known.any() else None,
        bins=reliability(np.clip(p[steps.mask].ravel(), 0, 1), done[steps.mask].ravel()),
        choosers=choosers,
        missing=missing,
    )


def halves(conversations: int, clusters: np.ndarray | None, seed: int) -> np.ndarray:
    """[B], 0 or 1 at random; conversations of one cluster are on one side."""
    index = np.arange(conversations) if clusters is None else np.unique(clusters, return_inverse=True)[1]
    groups = int(index.max()) + 1
    sides = np.random.default_rng((seed, 5)).permutation(groups) % 2
    return sides[index]


def _by_halves(
    make: Callable[[Sequence[ActTalk]], Chooser], steps: ActSteps, half: np.ndarray
) -> tuple[np.ndarray, tuple[Chooser, ...]]:
    """[B, A, K] of models of the other half each, and the models; of too few conversations there is but one
    model, of all of them."""
    found = np.zeros(steps.target.probabilities.shape)
    sides = [half == side for side in (0, 1)]
    if min(int(side.sum()) for side in sides) < FEWEST // 2:
        sides = [np.ones(len(half), bool)]
    choosers = []
    for side in sides:
        rest = ~side if len(sides) > 1 else side
        chooser = make([steps.talks[i] for i in np.flatnonzero(rest).tolist()])
        rows = np.flatnonzero(side).tolist()
        prefixes = [x for i in rows for x in steps.target.prefixes[i]]
        found[np.where(steps.mask, side[:, None], False)] = chances(chooser, prefixes, found.shape[2])
        choosers.append(chooser)
    return found, tuple(choosers)
