"""What acts leave out, and what a learnt model does: asked of conversations that neither has learnt from.

    words     do the words of messages tell what follows, beyond all that was exchanged as acts?
              Then an act has more than one meaning, and an estimate per act may be wrong by that.
    beyond    do the words of a message tell the answer, beyond what the model believes?
    history   does what was exchanged as acts?
              Then the model is wrong where it was not asked to plan, and may be so where it was.

*What follows* is the answer, whether it was the end, and the reward. None of the three needs to know how
probable the logged acts were, and none compares policies: what was done is what is foretold from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from turnwise.data.acts.talks import ActLogs
from turnwise.data.dialogue import Dialogue
from turnwise.evaluation.estimates.foretelling.exchanged import history_features, network_of
from turnwise.evaluation.estimates.foretelling.gains import Gain, fitted, gain_beyond
from turnwise.evaluation.estimates.foretelling.told import Told, answered_by, followed_by, told_of
from turnwise.evaluation.estimates.foretelling.wording import by_act, crossed, directions, worded_alike
from turnwise.evaluation.measures.playbook.plan import Plan

DECISIONS = 12_000
"""decisions of the agent that are read, in conversations drawn at random"""
LEAST = 40
"""conversations (or clusters) below which nothing is asked"""
RIDGE = 10.0
"""by which features of words are foretold from the history"""
RARE = 1e-6
"""least probability that a model is held to"""
INTERCEPTS = 1.0
"""penalty on what is added for each act to what a model says"""


@dataclass(frozen=True)
class Foretold:
    """Gains in nats; None where a question was not asked."""

    words: Gain | None = None
    beyond: Gain | None = None
    history: Gain | None = None


def ask(
    logs: ActLogs,
    dialogues: Sequence[Dialogue],
    plan: Plan | None,
    *,
    clusters: np.ndarray | None = None,
    most: int = DECISIONS,
    seed: int = 0,
) -> Foretold:
    """Ask all three. `dialogues` and `clusters` are in the order of the logs. Without a `plan` there is no
    model to be asked about; nothing is asked of fewer than `LEAST` conversations or clusters."""
    rng = np.random.default_rng((seed, 18))
    told = told_of(logs, dialogues, clusters, most, rng)
    if len(np.unique(told.group)) < LEAST:
        return Foretold()
    alike = worded_alike(told)
    nothing = Gain(0.0, 0.0, int(told.known.sum()))
    words = nothing if alike else gain_of_words(told, rng)
    if plan is None:
        return Foretold(words)
    before, followed = believed(told, plan)
    beyond = nothing if alike else gain_over_model(told, before, followed, rng, worded=True)
    return Foretold(words, beyond, gain_over_model(told, before, followed, rng, worded=False))


def gain_of_words(told: Told, rng: np.random.Generator) -> Gain | None:
    """What words tell of what follows, beyond all that was exchanged as acts.

    Words that repeat what was exchanged are no finding. So what is known is a network of it, and features of
    words count with what a regression on the same history leaves of them: one of the two may be a little
    wrong, and the gain is small as the product of both errors (Chernozhukov et al. 2018, "Double/debiased
    machine learning", section 1).
    """
    history = history_features(told)
    followed, kinds = followed_by(told)
    if kinds < 2:
        return None
    seed = int(rng.integers(2**31))

    def known(learnt: np.ndarray, apart: np.ndarray) -> np.ndarray:
        return network_of(history, followed, kinds, learnt, apart, seed)

    def features(learnt: np.ndarray, before: np.ndarray) -> np.ndarray:
        x = np.hstack([history, before, np.ones((len(history), 1))])
        x = x[:, np.ptp(x[learnt], axis=0) + (np.arange(x.shape[1]) == x.shape[1] - 1) > 0]
        solved = np.linalg.solve(x[learnt].T @ x[learnt] + RIDGE * np.eye(x.shape[1]), x[learnt].T)

        def left(of: np.ndarray) -> np.ndarray:
            return of - x @ (solved @ of[learnt])

        z = left(directions(told, learnt))
        return left(np.hstack([by_act(told, z), crossed(told, z)]))

    return gain_beyond(known, features, followed, told.known, told.group, rng)


def believed(told: Told, plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """What a model foretells at each decision, as log-probabilities [M, C]; and what followed [M].

    The C kinds are the answers that were given, with and without the end; those that never were are left out.
    """
    beliefs, _ = plan.follow(told.talks)
    here = np.concatenate([b[:-1] for b in beliefs])
    on, over = plan.model.outcomes(here, told.acts, told.times)
    answered = answered_by(told)
    kinds, followed = np.unique(answered, return_inverse=True)
    return np.log(np.clip(np.hstack([on, over]), RARE, 1))[:, kinds], followed


def gain_over_model(
    told: Told, before: np.ndarray, followed: np.ndarray, rng: np.random.Generator, *, worded: bool
) -> Gain | None:
    """What words (`worded`), or what was exchanged, tell of the answer beyond what a model says (`before`)
    and how often each act has each answer at all."""
    if before.shape[1] < 2:
        return None
    done = np.eye(told.symbols[0])[told.acts]
    history = None if worded else history_features(told)

    def known(learnt: np.ndarray, apart: np.ndarray) -> np.ndarray:
        return before + done @ fitted(done[learnt], followed[learnt], before[learnt], INTERCEPTS)

    def features(learnt: np.ndarray, _: np.ndarray) -> np.ndarray:
        return by_act(told, directions(told, learnt)) if history is None else history

    return gain_beyond(known, features, followed, told.known, told.group, rng)
