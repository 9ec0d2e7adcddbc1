"""What learnt models promise: they talk with every step from the logged agent to a policy of acts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from turnwise.evaluation.estimates.step_curve import STEPS, Way
from turnwise.exact.learning.model import LearntModel
from turnwise.recipes.estimating.acts.behaviour import Behaviour
from turnwise.recipes.estimating.curve import Promises
from turnwise.rollout.acts.agent import ActAgent
from turnwise.rollout.acts.chooser import Prefix
from turnwise.rollout.acts.imitation.steps import between
from turnwise.rollout.acts.logged import Remembering, chances
from turnwise.rollout.acts.simulated import siblings, simulated_talks


def promised(
    model: LearntModel,
    copies: int,
    agent: ActAgent,
    behaviour: Behaviour,
    way: Way,
    *,
    discount: float,
    talks: int,
    seed: int,
    at: Sequence[float] = STEPS,
) -> Promises:
    """Talk with the learnt models, at every step of the way from the behaviour to the policy.

    The behaviour is here what is estimated of it, since nobody logged what it does in talks that never were.
    """
    size = len(agent.codes.acts)
    policy = Remembering(agent.chooser)
    befores = [Remembering(c) for c in behaviour.choosers[:2]]  # they differ little, and take their time
    step = np.repeat(np.asarray(at), talks)  # of each lane

    def chance(prefixes: Sequence[Prefix], lanes: np.ndarray) -> np.ndarray:
        before = np.mean([chances(c, prefixes, size) for c in befores], axis=0)
        return between(before, chances(policy, prefixes, size), step[lanes], way)

    rng = np.random.default_rng((seed, 7))
    worlds = siblings(model, copies)
    found = np.stack(
        [simulated_talks(w, chance, len(step), discount, rng).reshape(len(at), talks) for w in worlds]
    )  # [worlds, S, talks]
    means, chance_variance = found.mean(2), found.var(2, ddof=1).mean(0) / talks  # [worlds, S], [S]
    rest = 1 - np.asarray(at)
    beside = means - rest * means[:, :1]
    both = np.where(rest < 1, chance_variance + rest**2 * chance_variance[0], 0.0)  # 0: the first itself
    return Promises(means.mean(0), _half(means, chance_variance), beside.mean(0), _half(beside, both))


def _half(means: np.ndarray, chance_variance: np.ndarray) -> np.ndarray:
    """[S], half of a 95% interval over models [worlds, S], whose means differ by chance as well: that counts
    once."""
    between_models = means.var(0, ddof=1) - chance_variance if len(means) > 1 else np.zeros(means.shape[1])
    return 1.96 * np.sqrt(np.maximum(between_models, 0.0) + chance_variance / len(means))
