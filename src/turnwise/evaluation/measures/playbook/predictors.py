"""How well a learnt model predicts held-out conversations, beside predictors that hold no hidden state.

All of them predict the same: the opening, and after each act of the agent what is answered and whether the
conversation ends with it (`exact/learning/predictors.py`, `evaluation/measures/next_answers.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from turnwise.evaluation.measures.next_answers import nats_per_symbol, recurrent_log_likelihoods
from turnwise.evaluation.measures.playbook.schema import Choice, Fit, Predictor
from turnwise.exact.learning.choose import Size
from turnwise.exact.learning.model import LearntModel
from turnwise.exact.learning.predictors import n_gram
from turnwise.exact.learning.sequences import Sequences

GRAMS = (1, 2, 3)
"""last answers that n-grams look at, and the acts between them; 1 is the one-step model"""
MOST = 100_000
"""decisions to learn from beyond which no recurrent network is trained: it would take minutes"""


def measure_fit(
    model: LearntModel,
    learnt: Sequences,
    held: Sequences,
    *,
    choices: Mapping[Size, tuple[float, float]] | None = None,
    chosen: Size | None = None,
    recurrent: bool = True,
    true: LearntModel | None = None,
    seed: int = 0,
) -> Fit:
    """Predictors on `held`, fitted to `learnt`, and what the number of states was chosen by.

    One that holds something impossible that happened has no figure, and is not there.
    `choices`: held-out nats per symbol and their standard error by size. `recurrent`: whether a
    GRU is trained too (ten seconds for some thousand conversations). `true`: the model that the conversations
    come from, if somebody knows it.
    """
    rows: list[Predictor] = []
    if len(held) > 1 and len(learnt) > 1:
        rng = np.random.default_rng(seed)

        def add(kind: Literal["model", "one-step", "n-gram", "gru", "true"], name: str, found: np.ndarray):
            if np.isfinite(found).all():  # infinitely bad is no figure
                per = nats_per_symbol(found, held.lengths, rng)
                mean, low, high = (per[key] for key in ("value", "low", "high"))
                rows.append({"kind": kind, "name": name, "mean": mean, "low": low, "high": high})

        add("model", "this model", model.log_likelihoods(held))
        for n in GRAMS:
            found = n_gram(learnt, held, n)
            if n == 1:
                add("one-step", "no hidden state: the act and the last answer", found)
            else:
                add("n-gram", f"the last {n} answers", found)
        if recurrent and len(learnt.actions) <= MOST:
            add("gru", "a recurrent network (GRU)", recurrent_log_likelihoods(learnt, held, seed=seed))
        if true is not None:
            add("true", "the true model", true.log_likelihoods(held))
    listed: list[Choice] = [
        {
            "states": size.states,
            "phases": size.phases,
            "mean": nats,
            "low": nats - 1.96 * error,
            "high": nats + 1.96 * error,
        }
        for size, (nats, error) in sorted((choices or {}).items())
    ]
    return {
        "predictors": rows,
        "choices": listed,
        "chosen": None if chosen is None else chosen.states,
        "phases": None if chosen is None else chosen.phases,
        "conversations": len(held) or None,
    }
