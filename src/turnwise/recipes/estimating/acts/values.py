"""Values of a policy at the logged decisions, from the logs: what doubly robust estimates correct."""

from __future__ import annotations

import numpy as np

from turnwise.data.acts.pack import ActSymbols
from turnwise.evaluation.estimates.fitted_q import Played, fit_tables, turn_keys
from turnwise.recipes.estimating.acts.steps import ActSteps

TURNS = 2
"""last turns by which histories are told apart, where enough conversations have gone through them"""


def fitted_values(steps: ActSteps, fold: np.ndarray, discount: float) -> np.ndarray:
    """q [B, A, K] of every act at the logged decisions, under the policy, in the units of the task.

    Fitted Q evaluation in tables; `fold` [B] are parts, each of which is valued by tables of the others
    (`evaluation/estimates/cross_fit.py` says why). What a cut conversation led to teaches nothing.
    """
    B, A = steps.mask.shape
    symbols = ActSymbols.of(steps.logs)
    seen = np.zeros((B, A + 1), np.int64)
    for b, t in enumerate(steps.logs):
        seen[b, : len(t) + 1] = symbols.observations(t.first, t.answers)
    ended = np.array([t.terminated for t in steps.logs])
    behind = np.zeros((B, 1, steps.target.probabilities.shape[2]))
    played = Played(
        acts=steps.acts,
        rewards=steps.rewards,
        mask=steps.mask,
        target=np.concatenate([steps.target.probabilities, behind], axis=1),
        terminated=ended,
        next_known=ended,
    )
    keys = turn_keys(seen, steps.acts, TURNS)
    q = np.zeros(steps.target.probabilities.shape)
    for part in np.unique(fold).tolist():
        here = fold == part
        learnt, asked = np.flatnonzero(here if here.all() else ~here), np.flatnonzero(here)
        tables = fit_tables([key[learnt] for key in keys], played.some(learnt), discount)
        q[asked] = tables.q([key[asked] for key in keys])[:, :A]
    return q
