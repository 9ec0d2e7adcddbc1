"""Talk of acts with a learnt model in the partner's place: what any policy of acts is worth in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from turnwise.exact.learning.model import END, GO_ON, STOP, LearntModel
from turnwise.exact.learning.planner import draws
from turnwise.rollout.acts.chooser import Prefix

LONGEST = 200
"""turns after which a talk is cut that neither the model nor its clock ends"""

Policy = Callable[[Sequence[Prefix], np.ndarray], np.ndarray]
"""(talks under way, the number of each one's lane [N]) -> probabilities of acts [N, K]"""


class Simulated(NamedTuple):
    """A talk that was held with a model, rewards included. The answer after its end stands for nothing."""

    talk: Prefix
    terminated: bool
    """False: nobody ended it, and it was cut after `LONGEST` turns"""
    logp: np.ndarray
    """[K], log-probabilities of the acts, as the policy gave them"""


def simulated_talks(
    model: LearntModel, policy: Policy, lanes: int, discount: float, rng: np.random.Generator
) -> np.ndarray:
    """[lanes], the return of a talk in each lane. ValueError for a model without rewards."""
    found = talks_with(model, policy, lanes, rng)
    return np.array([float(discount ** np.arange(len(x.talk)) @ x.talk.rewards) for x in found])


def talks_with(model: LearntModel, policy: Policy, lanes: int, rng: np.random.Generator) -> list[Simulated]:
    """A talk in each lane. ValueError for a model without rewards.

    The partner answers by the model, which also says when it ends. What the policy reads is what a talk of
    acts holds: it sees no state of the model.
    """
    if model.pay is None:
        raise ValueError("the model has no rewards")
    means, late = model.pay.means, model.pay.late
    states = draws(np.tile(model.start, (lanes, 1)), rng)
    firsts = draws(model.firsts[states], rng)
    talks = [Prefix.of(int(f)) for f in firsts]
    here, t = np.arange(lanes), 0
    logps: list[list[float]] = [[] for _ in range(lanes)]
    found: list[Simulated | None] = [None] * lanes
    while len(here):
        p = policy(talks, here)
        acts = draws(p, rng)
        chances = p[np.arange(len(acts)), acts] / p.sum(1)
        last = t + 1 >= (model.longest or LONGEST)
        over = rng.random(len(here)) < model.ends[acts, states]
        kind = np.where(over, END, STOP if last else GO_ON)
        paid = means[kind, acts, states]
        if len(late):
            paid = paid + np.where(kind == GO_ON, 0.0, late[min(t, len(late) - 1)])
        going = np.flatnonzero(kind == GO_ON)
        states = draws(model.transitions[acts[going], states[going]], rng) if len(going) else states[:0]
        seen = np.zeros(len(acts), np.int64)
        if len(going):
            seen[going] = draws(model.emissions[acts[going], states], rng)
        for i, lane in enumerate(here.tolist()):
            logps[lane].append(float(np.log(chances[i])))
            talks[i] = _longer(talks[i], int(acts[i]), int(seen[i]), float(paid[i]))
            if kind[i] != GO_ON:
                ended = kind[i] == END or model.longest is not None
                found[lane] = Simulated(talks[i], bool(ended), np.array(logps[lane]))
        talks = [talks[i] for i in going.tolist()]
        here, t = here[going], t + 1
    return [x for x in found if x is not None]


def siblings(model: LearntModel, copies: int) -> list[LearntModel]:
    """The models that a mixture of `copies` equally large ones was made of (`planner.mixture`)."""
    if copies == 1:
        return [model]
    size = model.shape[0] // copies
    found = []
    for c in range(copies):
        s = slice(c * size, (c + 1) * size)
        pay = model.pay and replace(model.pay, bins=model.pay.bins[:, :, s], means=model.pay.means[:, :, s])
        found.append(
            replace(
                model,
                start=model.start[s] / model.start[s].sum(),
                firsts=model.firsts[s],
                transitions=model.transitions[:, s, s],
                emissions=model.emissions[:, s],
                ends=model.ends[:, s],
                lasts=model.lasts[:, :, s],
                pay=pay,
            )
        )
    return found


def _longer(talk: Prefix, act: int, answer: int, reward: float) -> Prefix:
    return Prefix(
        talk.first,
        np.append(talk.acts, act),
        np.append(talk.answers, answer),
        np.append(talk.distances, 0.0),
        np.append(talk.rewards, reward),
        (*talk.evidence, None),
    )
