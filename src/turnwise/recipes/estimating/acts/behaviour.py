"""What the logged agent would do at each decision: as the logs say it, or as a model of it says.

Which model it is, and how well it is calibrated, is judged on conversations that the model has not learnt
from. Weights, though, are made of models that have: maximum likelihood follows what chance did in these
conversations, and divides it out again, so that weights of a good model are steadier than those of the true
probabilities (Hirano, Imbens & Ridder 2003; Hanna, Niekum & Stone 2019).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from turnwise.data.acts.talks import ActTalk
from turnwise.evaluation.measures.calibration import Bin, calibration_error, reliability
from turnwise.evaluation.measures.exchanges import exchange_acts
from turnwise.recipes.estimating.acts.steps import ActSteps, logged_logp
from turnwise.recipes.estimating.folds import FEWEST, FOLDS
from turnwise.rollout.acts.chooser import Chooser
from turnwise.rollout.acts.imitation.frequencies import timed_acts
from turnwise.rollout.acts.logged import chances
from turnwise.run.rehearsal import rehearsing

Source = Literal["logged", "partly logged", "estimated"]
MOST = 400_000
"""decisions beyond which no recurrent network is trained: it would take minutes"""
Maker = Callable[[Sequence[ActTalk]], Chooser]
"""talks to a clone of the agent that talked in them"""


@dataclass(frozen=True)
class Behaviour:
    """The policy that talked in the logs."""

    source: Source
    """of the log-probabilities of what was done"""
    model: str
    """what was estimated by"""
    probabilities: np.ndarray
    """[B, A, K], as the model says it. Steps begin at these: to bring them to what the log says of the one
    act that was done would make a policy of them that knows what will be done. Where the logs know how
    probable an act was, these are of models that have not learnt from the conversation, for the same reason;
    else they are what weights are made of"""
    logp: np.ndarray
    """[B, A], of what was done: as the log says it, or else as the model does"""
    nats: dict[str, float]
    """by model: minus the mean log-probability of an act that it has not learnt from"""
    logged_nats: float | None
    """the same of the probabilities that the logs themselves hold, where they do"""
    bins: list[Bin]
    """calibration of the model, over all acts of all decisions"""
    choosers: tuple[Chooser, ...]
    """the models, one for each part"""
    members: tuple[np.ndarray, ...]
    """[B, A, K] of each of these models, if weights are made of their mean; else none"""
    missing: int
    """decisions of which the logs do not say how probable they were"""
    besides: int = 0
    """conversations, beside those that are estimated from, that the models have learnt from"""

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
            "besides": self.besides,
        }


def behaviour_of(steps: ActSteps, fold: np.ndarray, *, seed: int, quiet: bool) -> Behaviour:
    """Find the behaviour. `fold` [B] are parts (`folds_of`), each predicted by a model of the others.

    The model is the one that predicts unseen acts best: acts counted after the last answer and turn, a
    regression on all that was exchanged, a small network on the same; or a GRU, if the logs do not say how
    probable their acts were, so that weights are made of the model. It is trained for all parts if it is
    better on the first. What the logs do not say is the mean of the models of all parts.
    """
    known = steps.mask & ~np.isnan(steps.act_logp)
    missing = int((steps.mask & ~known).sum())
    chosen: list[float] = []  # the penalty, by the first model: those of other parts ask for the same one

    def regression(talks: Sequence[ActTalk]) -> Chooser:
        found = exchange_acts(steps.logs, talks, penalty=chosen[0] if chosen else None, seed=seed)
        chosen.append(found.penalty)
        return found

    makers: dict[str, Maker] = {
        "frequencies after the last answer, by turn": lambda talks: timed_acts(steps.logs, talks),
        "regression on all that was exchanged": regression,
    }
    found = {name: _joined(make, steps, fold, list(np.unique(fold))) for name, make in makers.items()}
    few = len(fold) < FEWEST or int(steps.mask.sum()) > MOST or rehearsing()
    if not few:
        from turnwise.evaluation.measures.exchange_network import exchange_network

        def network(talks: Sequence[ActTalk]) -> Chooser:
            return exchange_network(steps.logs, talks, seed=seed)

        found["a network of all that was exchanged"] = _joined(network, steps, fold, list(np.unique(fold)))
    if missing and not few:
        from turnwise.evaluation.measures.next_acts import recurrent_clone

        def gru(talks: Sequence[ActTalk]) -> Chooser:
            return recurrent_clone(steps.logs, talks, seed=seed, quiet=quiet)

        one, _ = _joined(gru, steps, fold, [0])
        first = steps.mask & (fold == 0)[:, None]
        others = [_nats(p, steps, first) for p, _ in found.values()]
        if _nats(one, steps, first) < min(others):
            found["a recurrent network (GRU)"] = _joined(gru, steps, fold, list(np.unique(fold)))
    nats = {name: _nats(p, steps, steps.mask) for name, (p, _) in found.items()}
    best = min(nats, key=lambda name: nats[name])
    held, choosers = found[best]
    members = _members(choosers, steps) if missing else ()
    p = np.mean(members, axis=0) if members else held
    done = np.arange(len(steps.logs.acts)) == steps.acts[:, :, None]  # [B, A, K]
    return Behaviour(
        source="logged" if not missing else "estimated" if not known.any() else "partly logged",
        model=best,
        probabilities=held if known.any() else p,
        logp=np.where(known, steps.act_logp, np.where(steps.mask, logged_logp(p, steps.acts), 0.0)),
        nats=nats,
        logged_nats=-float(steps.act_logp[known].mean()) if known.any() else None,
        bins=reliability(np.clip(held[steps.mask].ravel(), 0, 1), done[steps.mask].ravel()),
        choosers=choosers,
        members=members,
        missing=missing,
        besides=len(steps.besides),
    )


def _joined(
    make: Maker, steps: ActSteps, fold: np.ndarray, asked: Sequence[int]
) -> tuple[np.ndarray, tuple[Chooser, ...]]:
    """[B, A, K] of the parts `asked`, by models of all other parts, and the models; if there is but one part,
    by a model of itself. What is there besides is parted too, so that no two models have learnt the same."""
    found, choosers = np.zeros(steps.target.probabilities.shape), []
    besides = np.arange(len(steps.besides)) % FOLDS
    for part in asked:
        here = fold == part
        rest = np.flatnonzero(here if here.all() else ~here).tolist()
        more = np.flatnonzero(here.all() | (besides != part)).tolist()
        chooser = make([*(steps.talks[i] for i in rest), *(steps.besides[i] for i in more)])
        prefixes = [x for i in np.flatnonzero(here).tolist() for x in steps.target.prefixes[i]]
        found[steps.mask & here[:, None]] = chances(chooser, prefixes, len(steps.logs.acts))
        choosers.append(chooser)
    return found, tuple(choosers)


def _members(choosers: Sequence[Chooser], steps: ActSteps) -> tuple[np.ndarray, ...]:
    """[B, A, K], what each of the models says of all conversations."""
    found = []
    for chooser in choosers:
        p = np.zeros(steps.target.probabilities.shape)
        p[steps.mask] = chances(chooser, steps.target.flat, len(steps.logs.acts))
        found.append(p)
    return tuple(found)


def _nats(p: np.ndarray, steps: ActSteps, where: np.ndarray) -> float:
    """Minus the mean log-probability of what was done."""
    return -float(logged_logp(p, steps.acts)[where].mean())
