"""What policies would earn by models that were learnt from other conversations than the policies were.

A plan is best in its own model, and so its own model promises too much of it: errors that look like luck are
chosen. A model of other conversations has other errors, and is not fooled by these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from turnwise.exact.learning.model import LearntModel
from turnwise.recipes.trained import ActPolicy
from turnwise.rollout.acts.chooser import Prefix
from turnwise.rollout.acts.logged import Remembering, chances
from turnwise.rollout.acts.plan import PlanChooser
from turnwise.rollout.acts.simulated import siblings, simulated_talks


class Opinion(NamedTuple):
    """What a policy would earn, with a 95% interval over models and chance."""

    value: float
    low: float
    high: float


def models_of(plan: ActPolicy) -> list[LearntModel]:
    """The models that a plan was made in: of the logs and of resamples."""
    chooser = plan.agent.chooser
    assert isinstance(chooser, PlanChooser)
    return siblings(chooser.planner.model, chooser.copies)


def opinions(
    policies: Mapping[str, ActPolicy], models: Sequence[LearntModel], *, talks: int, seed: int
) -> dict[str, Opinion]:
    """Each policy talks `talks` times with each of the models.

    The interval has the spread of the models, which are of resampled logs and so differ as chance would have
    them differ, and the chance of the talks themselves.
    """
    found = {}
    for name, policy in policies.items():
        chooser, size = Remembering(policy.agent.chooser), len(policy.agent.codes.acts)

        def ask(
            prefixes: Sequence[Prefix], _: np.ndarray, chooser: Remembering = chooser, size: int = size
        ) -> np.ndarray:
            return chances(chooser, prefixes, size)

        rng = np.random.default_rng((seed, 11))
        returns = np.stack([simulated_talks(m, ask, talks, 1.0, rng) for m in models])  # [models, talks]
        means, chance = returns.mean(1), returns.var(1, ddof=1).mean() / talks
        between = max(means.var(ddof=1) - chance, 0.0) if len(means) > 1 else 0.0
        half = 1.96 * float(np.sqrt(between + chance / len(means)))
        value = float(means.mean())
        found[name] = Opinion(value, value - half, value + half)
    return found
