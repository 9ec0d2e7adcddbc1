"""What a critic of logged conversations needs beside its algorithm: a unit, and a judge once it learnt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from turnwise.data.dialogue import Dialogue
from turnwise.data.tokens import Tokens
from turnwise.evaluation.measures.critics.tokens import measure_critic
from turnwise.evaluation.measures.shifts import is_far, measure_shift
from turnwise.models.lm.critics import Estimand
from turnwise.recipes.training.machine import Machine
from turnwise.rollout.agent import Agent
from turnwise.run.folder import write_json

Part = tuple[Sequence[Dialogue], Sequence[Tokens]]
"""Conversations and their token rows, in the same order."""


def spread(learnt: Sequence[Dialogue]) -> tuple[float, float, list[str]]:
    """Mean and standard deviation of the returns to learn from, and what is to be warned of.

    The deviation is 1 if all returns are equal: nothing can be divided by 0.
    """
    returns = np.array([d.undiscounted_return() for d in learnt])
    mean, std = float(returns.mean()), float(returns.std(ddof=1)) if len(returns) > 1 else 0.0
    if std > 1e-9 * (1 + abs(mean)):
        return mean, std, []
    doubt = (
        f"all {len(learnt):,} conversations to learn from have the return {returns[0]:g}: a critic learns "
        "from them no better and no worse, and beta is per unit of return"
    )
    return mean, 1.0, [doubt]


def judge_critic(agent: Agent, estimand: Estimand, learnt: Part, held: Part, m: Machine) -> dict[str, Any]:
    """What the critic knows of returns, and how far it moves the policy; written as critic.json for the page.

    Warns of a shift that is far. The critic's values, and the rewards of the rows, are in the task's units.
    """
    found = measure_critic(agent, estimand, learnt, held, m.seed)
    found["shift"] = shift = measure_shift(agent, held[1] or learnt[1])
    write_json(m.out / "critic.json", found)
    if shift is not None and is_far(shift):
        m.warn(shift["sentence"])
    return found
