"""How well a learnt model predicts held-out conversations, beside predictors that hold no hidden state.

All of them predict the same: the opening, and after each act of the agent what is answered and whether the
conversation ends with it. An n-gram looks at the act and at the last n - 1 turns, and falls back on shorter
contexts where it has seen little:

    p(x | c) = ( n(c, x) + m p(x | shorter c) ) / ( n(c) + m )        MacKay & Peto 1995

The one with the last answer alone is the *one-step* model: it takes the last answer for the whole state, as
if nothing before it mattered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np

from turnwise.evaluation.measures.next_answers import nats_per_symbol, recurrent_log_likelihoods
from turnwise.evaluation.measures.playbook.schema import Choice, Fit, Predictor
from turnwise.exact.learning.model import LearntModel
from turnwise.exact.learning.sequences import Sequences

STRENGTHS = (1.0, 3.0, 10.0, 30.0)
"""m: the imagined count of a shorter context; the one that predicts best what is kept apart of the logs"""
APART = 0.1
"""share of the logs that chooses it"""
GRAMS = (2, 3)
"""turns that n-grams look at, the present one included, beside the one-step model"""


def measure_fit(
    model: LearntModel,
    learnt: Sequences,
    held: Sequences,
    *,
    choices: Mapping[int, tuple[float, float]] | None = None,
    chosen: int | None = None,
    recurrent: bool = True,
    true: LearntModel | None = None,
    seed: int = 0,
) -> Fit:
    """Predictors on `held`, fitted to `learnt`, and what the number of states was chosen by.

    One that holds something impossible that happened has no figure, and is not there.
    `choices`: held-out nats per symbol and their standard error by number of states. `recurrent`: whether a
    GRU is trained too (a minute for some thousand conversations). `true`: the model that the conversations
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
        for n in (1, *GRAMS):
            found = gram_log_likelihoods(learnt, held, n, model.longest)
            if n == 1:
                add("one-step", "no hidden state: the act and the last answer", found)
            else:
                add("n-gram", f"the last {n} turns", found)
        if recurrent:
            add("gru", "a recurrent network (GRU)", recurrent_log_likelihoods(learnt, held, seed=seed))
        if true is not None:
            add("true", "the true model", true.log_likelihoods(held))
    listed: list[Choice] = [
        {"states": k, "mean": nats, "low": nats - 1.96 * error, "high": nats + 1.96 * error}
        for k, (nats, error) in sorted((choices or {}).items())
    ]
    return {"predictors": rows, "choices": listed, "chosen": chosen, "conversations": len(held) or None}


def gram_log_likelihoods(
    learnt: Sequences, held: Sequences, turns: int, longest: int | None = None
) -> np.ndarray:
    """[N], ln P(opening, answers, ends | acts) of each held-out conversation, in nats.

    `turns` 1 is the one-step model: the act, and the answer before it. Every further turn adds the act and
    the answer before those. With `longest` it knows which turn is the last one by the clock.
    """
    cut = max(1, round((1 - APART) * len(learnt)))
    own, apart = (learnt.select(np.arange(a, b)) for a, b in ((0, cut), (cut, len(learnt))))
    counts = _counted(own, turns, longest)
    best = max(STRENGTHS, key=lambda m: _scored(counts, apart, turns, longest, m).sum())
    return _scored(_counted(learnt, turns, longest), held, turns, longest, best) + _first(learnt)[held.firsts]


def _first(learnt: Sequences) -> np.ndarray:
    """[F], ln P(opening), by Laplace's rule."""
    counts = 1.0 + np.bincount(learnt.firsts, minlength=learnt.first_symbols)
    return np.log(counts / counts.sum())


def _events(s: Sequences, turns: int, longest: int | None) -> Iterator[tuple[int, int, tuple[tuple, ...]]]:
    """(episode, what followed, its contexts from the shortest to the longest) of each step."""
    O = s.observation_symbols
    for i in range(len(s)):
        lo, hi = int(s.offsets[i]), int(s.offsets[i + 1])
        acts, answers = s.actions[lo:hi].tolist(), s.observations[lo:hi].tolist()
        before = [O + int(s.firsts[i]), *answers]  # the opening is the answer before the first act
        for k, (a, o) in enumerate(zip(acts, answers, strict=True)):
            ended = k == hi - lo - 1 and bool(s.ended[i])
            context: tuple = (a, longest is not None and k >= longest - 1)
            contexts: list[tuple] = [(), context]
            for back in range(turns):
                if k - back < 0:
                    break
                context = (*context, before[k - back])
                contexts.append(context)
                if k - back - 1 >= 0 and back + 1 < turns:
                    context = (*context, acts[k - back - 1])
                    contexts.append(context)
            yield i, o + O * ended, tuple(contexts)


def _counted(s: Sequences, turns: int, longest: int | None) -> tuple[Counter, Counter]:
    pairs, totals = Counter[tuple](), Counter[tuple]()
    for _, x, contexts in _events(s, turns, longest):
        for c in contexts:
            pairs[c, x] += 1
            totals[c] += 1
    return pairs, totals


def _scored(
    counts: tuple[Counter, Counter], s: Sequences, turns: int, longest: int | None, strength: float
) -> np.ndarray:
    pairs, totals = counts
    found, uniform = np.zeros(len(s)), 1 / (2 * s.observation_symbols)
    for i, x, contexts in _events(s, turns, longest):
        p = uniform
        for c in contexts:
            p = (pairs[c, x] + strength * p) / (totals[c] + strength)
        found[i] += np.log(p)
    return found
