"""Hidden states by what sets them apart, and what answers tell about them."""

from __future__ import annotations

import numpy as np

from turnwise.evaluation.measures.playbook.plan import Plan
from turnwise.evaluation.measures.playbook.schema import Look, Seen, State, Trait

TRAITS = 6
"""of a state"""
OF_AN_ACT = 2
"""traits of a state that are about the same act"""
OF_A_KIND = {"answer": 4, "opening": 2, "ends": 1, "reward": 2}
"""traits of a state that are of the same kind, so that rewards do not crowd out what is said"""
RATIO = 1.5
"""how much more often than elsewhere something must happen to set a state apart"""
LIKELY = 0.05
"""what happens more rarely sets nothing apart that a person would notice"""
LISTED = 8
"""answers to an act"""
RARE = 0.01
"""answers that are less likely are not listed"""
OVER = 0.9
"""probability that an act ends the conversation from which on nobody learns from its answers"""


def state_names(count: int) -> list[str]:
    """A, B, ..., Z, AA, AB, ..."""
    letters = [chr(65 + i) for i in range(26)]
    return [letters[i] if i < 26 else letters[i // 26 - 1] + letters[i % 26] for i in range(count)]


def describe_states(plan: Plan, tried: np.ndarray, shares: np.ndarray | None) -> list[State]:
    """Each state with how common it is and its traits.

    `tried` [A] is how often the logged agent used each act; `shares` [S shown] how much of the logged turns
    the model places in each state, None if there are none.
    """
    start = plan.shown(plan.model.start)
    common = start if shares is None else shares
    frequency = tried / tried.sum() if tried.sum() > 0 else np.full(len(tried), 1 / len(tried))
    return [
        {
            "name": name,
            "start": float(start[s]),
            "share": None if shares is None else float(shares[s]),
            "traits": _traits(plan, s, common, frequency),
        }
        for s, name in enumerate(state_names(plan.states))
    ]


def _traits(plan: Plan, s: int, common: np.ndarray, frequency: np.ndarray) -> list[Trait]:
    """What sets state `s` apart, by the nats per turn that it tells about being there or elsewhere."""
    m, S = plan.model, plan.states
    if S == 1:
        return []
    others = np.array([i for i in range(S) if i != s])
    weights = common[others] if common[others].sum() > 0 else np.ones(S - 1)
    weights = weights / weights.sum()
    found: list[tuple[float, Trait]] = []
    for a in range(m.shape[1]):
        eye = np.eye(m.shape[0])
        acts = np.full(m.shape[0], a)
        answers = plan.given_shown(m.predict(eye, acts))
        ends = plan.given_shown(m.ends[a])
        for o, (here, there) in enumerate(zip(answers[s], weights @ answers[others], strict=True)):
            found.append(_told("answer", o, a, here, there, frequency[a]))
        found.append(_told("ends", None, a, ends[s], weights @ ends[others], frequency[a]))
        if m.pay is not None:
            pay = plan.given_shown(m.expected_rewards(eye, acts))
            here, there = float(pay[s]), float(weights @ pay[others])
            spread = _spread(plan)
            far = 0.5 * ((here - there) / spread) ** 2 if spread > 0 else 0.0
            worth = frequency[a] * far if far > 0.02 else 0.0
            found.append((worth, _trait("reward", None, a, here, there)))
    first = plan.given_shown(m.firsts)
    if first.shape[1] > 1:
        for f, (here, there) in enumerate(zip(first[s], weights @ first[others], strict=True)):
            found.append(_told("opening", f, None, here, there, 1.0))
    kept: list[Trait] = []
    for worth, trait in sorted(found, key=lambda pair: -pair[0]):
        same = sum(t["after"] == trait["after"] for t in kept) if trait["after"] is not None else 0
        alike = sum(t["kind"] == trait["kind"] for t in kept)
        if worth > 0 and len(kept) < TRAITS and same < OF_AN_ACT and alike < OF_A_KIND[trait["kind"]]:
            kept.append(trait)
    return kept


def _told(kind, symbol: int | None, after: int | None, here: float, there: float, weight: float):
    """(nats per turn, trait); 0 nats for what does not happen there clearly more than elsewhere."""
    clear = here >= LIKELY and here >= RATIO * there
    nats = weight * here * np.log(here / max(there, 1e-6)) if clear else 0.0
    return float(nats), _trait(kind, symbol, after, here, there)


def _trait(kind, symbol: int | None, after: int | None, here: float, there: float) -> Trait:
    return {"kind": kind, "symbol": symbol, "after": after, "here": float(here), "elsewhere": float(there)}


def _spread(plan: Plan) -> float:
    """Standard deviation of expected rewards over acts and states: the unit in which two differ."""
    m = plan.model
    eye = np.eye(m.shape[0])
    pay = np.stack([m.expected_rewards(eye, np.full(m.shape[0], a)) for a in range(m.shape[1])])
    return float(pay.std())


def describe_looks(plan: Plan, acts: np.ndarray) -> list[Look]:
    """What the answers to each of `acts` tell before anything was said, at the start's belief."""
    m = plan.model
    before = m.start
    found = [_look(plan, before, int(a)) for a in acts]
    return [look for look in found if look["ends"] < OVER]


def _look(plan: Plan, before: np.ndarray, a: int) -> Look:
    m = plan.model
    on, over = (x[0] for x in m.outcomes(before[None], np.array([a]), np.zeros(1, int)))  # [O]
    order = [int(o) for o in np.argsort(-on, kind="stable")[:LISTED] if on[o] >= RARE]
    seen: list[Seen] = []
    for o in order:
        after = m.update(before[None], np.array([a]), np.array([o]))[0][0]
        seen.append({"answer": o, "probability": float(on[o]), "after": plan.shown(after).tolist()})
    return {
        "act": a,
        "before": plan.shown(before).tolist(),
        "information": _information(plan, before, a),
        "answers": seen,
        "ends": float(over.sum()),
        "rest": max(0.0, 1 - float(over.sum()) - sum(x["probability"] for x in seen)),
    }


def _information(plan: Plan, belief: np.ndarray, a: int) -> float:
    """I(state; answer and whether it goes on) in nats, at a belief [S], of the shown states.

    sum_s b(s) sum_x P(x|s,a) ln( P(x|s,a) / P(x|b,a) )
    """
    m = plan.model
    S = m.shape[0]
    outcomes = np.concatenate(m.outcomes(np.eye(S), np.full(S, a), np.zeros(S, int)), 1)  # [S, 2 O]
    joint = plan.shown((belief[:, None] * outcomes).T).T  # [S shown, 2 O]
    apart = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(joint > 0, joint * np.log(joint / apart), 0.0)
    return max(0.0, float(terms.sum()))
