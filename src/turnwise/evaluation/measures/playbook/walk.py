"""The plan followed forwards in its model: what it says where, what is answered, how often.

Beliefs that can be reached are followed turn by turn with their probabilities, the most likely ones. Those of
one turn at which the plan says the same and believes about the same are one place of the graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from turnwise.evaluation.measures.playbook.plan import Plan
from turnwise.evaluation.measures.playbook.schema import Edge, Graph, Node

FOLLOWED = 1000
"""beliefs of a turn, the most likely ones"""
UNLIKELY = 1e-5
"""probability of a belief below which it is not followed"""
LONGEST = 30
"""turns that are followed where no clock ends a conversation sooner"""
TURNS = 5
"""turns of the graph"""
PLACES = 5
"""places of a turn in the graph"""
COMMON = 0.02
"""probability from which on a place, or an arrow from its place, is in the graph"""
NEAR = 0.15
"""total variation of two beliefs below which they are about the same"""


@dataclass
class _Place:
    """Beliefs of one turn with the same act, near the first of them, which is the most likely one."""

    turn: int
    act: int
    belief: np.ndarray
    rows: list[int] = field(default_factory=list)
    probability: float = 0.0
    mean: np.ndarray | float = 0.0
    ends: float = 0.0
    """probability of coming here and ending here"""
    openings: dict[int, float] = field(default_factory=dict)
    leads: dict[int, dict[int, float]] = field(default_factory=dict)
    """probability by place of the next turn (its index) and answer"""


@dataclass(frozen=True)
class Walk:
    """What following the plan came to."""

    graph: Graph
    planned: np.ndarray
    """[A], how often the plan says each act in a conversation"""
    turns: float
    """of a conversation, on average, as far as it was followed"""


def follow_plan(plan: Plan) -> Walk:
    """Follow the plan from the start of a conversation."""
    m = plan.model
    S, A, O = m.shape
    limit = min(m.longest or LONGEST, LONGEST)
    chance = m.start @ m.firsts  # [F]
    firsts = np.argsort(-chance, kind="stable")[:FOLLOWED]
    firsts = firsts[chance[firsts] >= UNLIKELY]
    beliefs, p = m.first(firsts), chance[firsts]
    came: list[tuple[int, int]] = []  # (place of the turn before, answer) of each belief
    planned, rows, followed = np.zeros(A), [], 0
    before: list[_Place] = []
    for t in range(limit):
        if not len(p):
            break
        acts = plan.best(beliefs, np.full(len(p), t))
        np.add.at(planned, acts, p)
        places, place_of = _gathered(plan, t, beliefs, acts, p)
        for i, (where, chance_) in enumerate(zip(place_of, p.tolist(), strict=True)):
            if came:
                source, answer = came[i]
                to = before[source].leads.setdefault(where, {})
                to[answer] = to.get(answer, 0.0) + chance_
            else:
                places[where].openings[int(firsts[i])] = chance_
        on, over = m.outcomes(beliefs, acts, np.full(len(p), t))
        for where, ended in zip(place_of, p * over.sum(1), strict=True):
            places[where].ends += float(ended)
        if t < TURNS:
            rows.append(places)
        joint = p[:, None] * on  # [N, O]
        order = np.argsort(-joint, axis=None, kind="stable")[:FOLLOWED]
        order = order[joint.reshape(-1)[order] >= UNLIKELY]
        n, o = np.divmod(order, O)
        beliefs = m.update(beliefs[n], acts[n], o)[0] if len(n) else np.empty((0, S))
        p = joint[n, o]
        came = [(place_of[i], int(a)) for i, a in zip(n.tolist(), o.tolist(), strict=True)]
        before = places
        followed = t + 1
    return Walk(_graph(plan, rows, longer=followed > len(rows)), planned, float(planned.sum()))


def _gathered(
    plan: Plan, turn: int, beliefs: np.ndarray, acts: np.ndarray, p: np.ndarray
) -> tuple[list[_Place], list[int]]:
    """The places of a turn, and the place of each belief."""
    shown = plan.shown(beliefs)
    places: list[_Place] = []
    place_of = [0] * len(p)
    for i in np.argsort(-p, kind="stable").tolist():
        near = (
            j
            for j, place in enumerate(places)
            if place.act == acts[i] and 0.5 * np.abs(place.belief - shown[i]).sum() <= NEAR
        )
        j = next(near, len(places))
        if j == len(places):
            places.append(_Place(turn, int(acts[i]), shown[i]))
        places[j].rows.append(i)
        places[j].probability += float(p[i])
        place_of[i] = j
    for place in places:
        weights = p[place.rows]
        place.mean = weights @ shown[place.rows] / weights.sum()
    return places, place_of


def _graph(plan: Plan, rows: Sequence[Sequence[_Place]], *, longer: bool) -> Graph:
    """The likely places with the likely arrows between them."""
    kept: list[tuple[int, int]] = []
    for t, places in enumerate(rows):
        order = sorted(range(len(places)), key=lambda j: -places[j].probability)
        if t:  # a place that no arrow of the graph leads to would stand there alone
            there = [rows[s][i] for s, i in kept if s == t - 1]
            order = [j for j in order if any(_share(place, j) >= COMMON for place in there)]
        chosen = [j for j in order if places[j].probability >= COMMON][:PLACES]
        kept += [(t, j) for j in (chosen or (order[:1] if t == 0 else []))]
    number = {where: i for i, where in enumerate(kept)}
    nodes: list[Node] = []
    edges: list[Edge] = []
    for t, j in kept:
        place = rows[t][j]
        nodes.append({"turn": t, "act": place.act, "probability": place.probability,
                      "belief": np.asarray(place.mean).tolist()})  # fmt: skip
        for target, answers in sorted(place.leads.items()):
            share = _share(place, target)
            if (t + 1, target) in number and share >= COMMON:
                likely = sorted(answers, key=lambda o: -answers[o])
                edges.append({"source": number[t, j], "target": number[t + 1, target],
                              "answers": likely, "probability": share})  # fmt: skip
    total = sum(place.probability for places in rows for place in places)
    drawn = sum(rows[t][j].probability for t, j in kept)
    return {
        "nodes": nodes,
        "edges": edges,
        "ends": [min(1.0, rows[t][j].ends / rows[t][j].probability) for t, j in kept],
        "openings": [sorted(rows[t][j].openings.items(), key=lambda x: -x[1]) for t, j in kept],
        "left_out": max(0.0, 1 - drawn / total) if total > 0 else 0.0,
        "longest": len(rows) if longer else None,
    }


def _share(place: _Place, target: int) -> float:
    """Probability of going on from a place to one of the next turn."""
    return sum(place.leads.get(target, {}).values()) / place.probability
