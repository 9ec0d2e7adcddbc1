"""Talk of acts with a learnt model in the partner's place: what any policy of acts is worth in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from turnwise.exact.learning.model import END, GO_ON, STOP, LearntModel
from turnwise.exact.learning.planner import draws
from turnwise.rollout.acts.chooser import Prefix

LONGEST = 200
"""turns after which a talk is cut that neither the model nor its clock ends"""

Policy = Callable[[Sequence[Prefix], np.ndarray], np.ndarray]
"""(talks under way, the number of each one's lane [N]) -> probabilities of acts [N, K]"""


def simulated_talks(
    model: LearntModel, policy: Policy, lanes: int, discount: float, rng: np.random.Generator
) -> np.ndarray:
    """[lanes], the return of a talk in each lane. ValueError for a model without rewards.

    The partner answers by the model, which also says when it ends. What the policy reads is what a talk of
    acts holds: it sees no state of the model.
    """
    if model.pay is None:
        raise ValueError("the model has no rewards")
    means, late = model.pay.means, model.pay.late
    states = draws(np.tile(model.start, (lanes, 1)), rng)
    firsts = draws(model.firsts[states], rng)
    talks = [Prefix.of(int(f)) for f in firsts]
    here, returns, t = np.arange(lanes), np.zeros(lanes), 0
    while len(here):
        acts = draws(policy(talks, here), rng)
        last = t + 1 >= (model.longest or LONGEST)
        over = rng.random(len(here)) < model.ends[acts, states]
        kind = np.where(over, END, STOP if last else GO_ON)
        paid = means[kind, acts, states]
        if len(late):
            paid = paid + np.where(kind == GO_ON, 0.0, late[min(t, len(late) - 1)])
        returns[here] += discount**t * paid
        going = np.flatnonzero(kind == GO_ON)
        here, acts = here[going], acts[going]
        states = draws(model.transitions[acts, states[going]], rng) if len(going) else states[:0]
        seen = draws(model.emissions[acts, states], rng) if len(going) else acts
        talks = [
            _longer(talks[i], a, o)
            for i, a, o in zip(going.tolist(), acts.tolist(), seen.tolist(), strict=True)
        ]
        t += 1
    return returns


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


def _longer(talk: Prefix, act: int, answer: int) -> Prefix:
    return Prefix(
        talk.first,
        np.append(talk.acts, act),
        np.append(talk.answers, answer),
        np.append(talk.distances, 0.0),
        np.append(talk.rewards, 0.0),
        (*talk.evidence, None),
    )
