"""A playbook, computed: what a plan in a learnt model says to people (`playbook.json`, see `schema.py`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from turnwise.data.acts.talks import ActLogs, Codes
from turnwise.evaluation.measures.intervals import mean_interval
from turnwise.evaluation.measures.playbook.plan import Plan
from turnwise.evaluation.measures.playbook.schema import (
    Act,
    Bounds,
    Figure,
    Fit,
    Playbook,
    Warned,
    Worth,
)
from turnwise.evaluation.measures.playbook.sentences import Held, answer_phrases, phrases, show_talks
from turnwise.evaluation.measures.playbook.states import describe_looks, describe_states
from turnwise.evaluation.measures.playbook.walk import follow_plan

TALKS = 40
"""conversations that are kept for the page"""
BELIEFS = 300
"""logged occasions of an act over which its worth in the model is averaged"""


def make_playbook(
    plan: Plan,
    codes: Codes,
    logs: ActLogs,
    talks: Sequence[Held],
    *,
    title: str = "",
    unit: str = "",
    worth: Sequence[Worth] = (),
    bounds: Bounds | None = None,
    fit: Fit | None = None,
    warnings: Sequence[Warned] = (),
    rng: np.random.Generator,
) -> Playbook:
    """The document.

    `logs` are what the model was learnt from: they give counts, mean returns and the beliefs at which acts
    were used. `talks` are conversations to show, the first `TALKS` of them. `worth`, `bounds`, `fit` and
    `warnings` are measured where the plan was made, and stand as they are.
    """
    beliefs, _ = plan.follow(logs.talks)
    tried = np.bincount(_all([t.acts for t in logs]), minlength=len(codes.acts)).astype(float)
    shares = None
    if logs.talks:
        shares = plan.shown(np.concatenate([b[:-1] for b in beliefs])).mean(0)
    walk = follow_plan(plan)
    return {
        "title": title,
        "unit": unit,
        "confidence": 0.95,
        "worth": list(worth),
        "bounds": bounds,
        "states": describe_states(plan, tried, shares),
        "acts": _acts(plan, codes, logs, beliefs, walk.planned, rng),
        "answers": answer_phrases(codes),
        "openings": phrases(codes.opening),
        "looks": describe_looks(plan, np.flatnonzero((tried > 0) | (walk.planned > 0))),
        "graph": walk.graph,
        "talks": show_talks(plan, codes, talks[:TALKS]),
        "fit": fit,
        "warnings": list(warnings),
    }


def with_live_talks(book: Playbook, plan: Plan, codes: Codes, talks: Sequence[Held]) -> Playbook:
    """The document with conversations that the plan held, in place of those that it held before."""
    logged = [t for t in book["talks"] if t["source"] == "log"]
    live = show_talks(plan, codes, talks[: TALKS // 2])
    return {**book, "talks": [*live, *logged[: TALKS - len(live)]]}


def _all(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def _acts(
    plan: Plan,
    codes: Codes,
    logs: ActLogs,
    beliefs: Sequence[np.ndarray],
    planned: np.ndarray,
    rng: np.random.Generator,
) -> list[Act]:
    """Acts with the mean return of the logs after their first use, beside the model's worth there."""
    used: list[list[tuple[int, int]]] = [[] for _ in codes.acts]  # (talk, turn) of the first use in each talk
    counts = np.zeros(len(codes.acts), int)
    for i, talk in enumerate(logs):
        np.add.at(counts, talk.acts, 1)
        for a, k in zip(*np.unique(talk.acts, return_index=True), strict=True):
            used[int(a)].append((i, int(k)))
    start = plan.values.q(plan.model.start[None], np.zeros(1, int))[0]
    found: list[Act] = []
    for a, phrase in enumerate(phrases(codes.agent)):
        q = None
        if used[a]:
            chosen = rng.permutation(len(used[a]))[:BELIEFS]
            places = [used[a][j] for j in chosen]
            at = np.stack([beliefs[i][k] for i, k in places])
            q = float(plan.values.q(at, np.array([k for _, k in places]))[:, a].mean())
        returns = [float(logs[i].rewards[k:].sum()) for i, k in used[a]]
        found.append(
            {
                **phrase,
                "count": int(counts[a]),
                "logged_return": _mean(returns, rng) if logs.rated else None,
                "q": q if q is not None and np.isfinite(q) else None,
                "q_start": float(start[a]) if np.isfinite(start[a]) else None,
                "planned": float(planned[a]),
            }
        )
    return found


def _mean(values: Sequence[float], rng: np.random.Generator) -> Figure | None:
    """With its interval over conversations; without one if there is a single conversation."""
    if not values:
        return None
    if len(values) < 2:
        return {"mean": float(values[0]), "low": None, "high": None, "n": 1}
    e = mean_interval(values, rng=rng, resamples=500)
    return {"mean": e.mean, "low": e.low, "high": e.high, "n": e.n}
