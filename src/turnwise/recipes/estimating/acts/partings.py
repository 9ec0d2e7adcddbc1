"""Where a policy parts ways with the logged agent: situations, what each does there, and talks to read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import special

from turnwise.data.acts.talks import Codes
from turnwise.data.dialogue import Dialogue, spoken
from turnwise.evaluation.measures.intervals import mean_interval
from turnwise.recipes.estimating.acts.steps import ActSteps

SITUATIONS, TALKS, ACTS = 6, 2, 3
"""situations at most; conversations shown of each; acts of each side that are named in each"""
FEWEST = 5
"""conversations that a situation has to have been logged in"""
BEFORE = 6
"""messages shown before a decision"""
LEAST = 1e-6
"""probability that the logged agent is taken to have of anything"""


def partings(steps: ActSteps, before: np.ndarray, codes: Codes, seed: int) -> list[dict[str, Any]]:
    """The situations (turn, last act, last answer) where policy and logged agent differ most.

    `before` [B, A, K] is what the logged agent would do, as a model of it says. A situation weighs as many
    nats as both are apart there, KL(policy || logged agent), times how often it was logged: what is done a
    little more often in many talks weighs less than another choice in some. `went_on` is what conversations
    of the logs earned from there on, by what was done there: the logged agent chose it, so that it is no
    measurement of the act.
    """
    rng = np.random.default_rng((seed, 8))
    p = steps.target.probabilities
    apart = np.where(steps.mask, np.abs(p - before).sum(2) / 2, 0.0)  # [B, A] total variation
    # What the model of the logged agent deems impossible is far, and not infinitely far.
    nats = np.where(steps.mask, special.rel_entr(p, np.maximum(before, LEAST)).sum(2), 0.0)  # [B, A]
    places = np.argwhere(steps.mask)  # [n, 2] rows of (conversation, decision)
    kinds, inverse, counts = np.unique(steps.histories[steps.mask], return_inverse=True, return_counts=True)
    weight, differing = (np.bincount(inverse, x[steps.mask], len(kinds)) for x in (nats, apart))
    total = weight.sum()
    to_go = np.cumsum(np.where(steps.mask, steps.rewards, 0.0)[:, ::-1], axis=1)[:, ::-1]  # [B, A]
    found = []
    for kind in np.argsort(-np.where(counts >= FEWEST, weight, -1.0), kind="stable")[:SITUATIONS]:
        if counts[kind] < FEWEST or weight[kind] <= 0:
            break
        here = places[inverse == kind]
        b, k = here.T
        done = steps.acts[b, k]
        policy, logged = p[b, k].mean(0), np.bincount(done, minlength=p.shape[2]) / len(done)
        named = dict.fromkeys([*np.argsort(-policy)[:ACTS].tolist(), *np.argsort(-logged)[:ACTS].tolist()])
        prefix = steps.target.prefixes[b[0]][k[0]]
        turn = int(k[0])
        found.append(
            {
                "turn": turn + 1,
                "after": codes.acts[prefix.acts[-1]] if turn else None,
                "heard": codes.answers[prefix.answers[-1]] if turn else codes.openings[prefix.first],
                "conversations": len(here),
                "apart": float(differing[kind] / counts[kind]),
                "share": float(weight[kind] / total),
                "went_on": _mean(to_go[b, k], rng),
                "acts": [
                    {"act": steps.logs.acts[a], "says": _sentence(steps, codes, a),
                     "policy": float(policy[a]), "logged": float(logged[a]), "count": int((done == a).sum()),
                     "went_on": _mean(to_go[b, k][done == a], rng)}
                    for a in named if policy[a] >= 0.01 or logged[a] >= 0.01
                ],
                "talks": _talks(steps, codes, here, to_go, rng),
            }
        )  # fmt: skip
    return found


def _talks(
    steps: ActSteps, codes: Codes, here: np.ndarray, to_go: np.ndarray, rng: np.random.Generator
) -> list[dict[str, Any]]:
    """Conversations in which the policy would most likely have done something else, drawn among those
    whatever they earned."""
    p = steps.target.probabilities[here[:, 0], here[:, 1]]  # [n, K]
    same = np.take_along_axis(p, steps.acts[here[:, 0], here[:, 1]][:, None], 1)[:, 0]
    other = np.flatnonzero(same < 0.5)
    found = []
    for i in rng.permutation(other)[:TALKS].tolist():
        b, k = here[i].tolist()
        d, likeliest = steps.dialogues[b], int(p[i].argmax())
        at = _place(d, k)
        found.append(
            {
                "id": d.id,
                "earlier": max(0, at - BEFORE),
                "messages": [
                    {"role": m.role, "content": spoken(m)} for m in d.messages[max(0, at - BEFORE) : at]
                ],
                "agent": d.agent_role,
                "logged": spoken(d.messages[at]),
                "logged_as": codes.acts[int(steps.acts[b, k])],
                "policy": _sentence(steps, codes, likeliest),
                "policy_means": steps.logs.acts[likeliest],
                "probability": float(p[i, likeliest]),
                "went_on": float(to_go[b, k]),
            }
        )
    return found


def _place(d: Dialogue, turn: int) -> int:
    """Where the agent's message number `turn`, from 0, stands."""
    return [i for i, m in enumerate(d.messages) if m.role == d.agent_role][turn]


def _sentence(steps: ActSteps, codes: Codes, act: int) -> str:
    """What is most often said for an act, names and numbers as slots; its name if it has no sentence."""
    examples = codes.examples(act) if act < len(codes.acts) else []
    return examples[0].template if examples else steps.logs.acts[act]


def _mean(values: Sequence[float] | np.ndarray, rng: np.random.Generator) -> dict[str, Any] | None:
    """Mean with its 95% interval; no interval of one value, nothing of none."""
    if not len(values):
        return None
    if len(values) < FEWEST:
        return {"value": float(np.mean(values)), "low": None, "high": None}
    e = mean_interval(values, rng=rng, resamples=400)
    return {"value": e.mean, "low": e.low, "high": e.high}
