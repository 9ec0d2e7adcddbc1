"""Policies of HelpDesk's acts made by different methods from the same logs, and what they are truly worth.

HelpDesk without words is a POMDP with four states; its beliefs can be counted, so every policy here has an
exact value. Methods with tables take for the state what counts: how the parts stand by answers "broken" less
"fine", in order, and the place of the part tested last. All parts are alike to them, as they are to the desk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from belief_graphs import Episodes, Graph, Policy, mixed, tilted

from turnwise.envs.pomdp import POMDP
from turnwise.envs.tasks.helpdesk.logs import behavior_probabilities
from turnwise.envs.tasks.helpdesk.rules import HORIZON, PARTS, RELIABILITY, TEST_COST
from turnwise.evaluation.estimates.fitted_q import Played, TabularQ, fit_tables, looked_up

K = len(PARTS)
OVER = 2 * K
"""what is seen when the episode ends; 2 k + 1 is "broken" of part k, 2 k is "fine" """
FEW, ROUNDS, TAU = 5.0, 4, 0.9


def helpdesk_problem(broken: np.ndarray, right: np.ndarray, prior: np.ndarray) -> POMDP:
    """HelpDesk with `broken` [S, K], P("broken" | state, test of part), and `right` [S, K], P(right | state,
    fix of part)."""
    S, A = len(prior), 2 * K
    sees = np.zeros((A, S, OVER + 1))
    sees[K:, :, OVER] = 1.0
    pays = np.full((A, S), -TEST_COST)
    for k in range(K):
        sees[k, :, 2 * k + 1], sees[k, :, 2 * k] = broken[:, k], 1 - broken[:, k]
        pays[K + k] = 2 * right[:, k] - 1
    ends = np.zeros((A, S, S), bool)
    ends[K:] = True
    return POMDP.from_arrays(
        np.tile(np.eye(S), (A, 1, 1)), sees, pays, discount=1.0, start=prior, ends=ends, name="HelpDesk"
    )


@cache
def desk_graph() -> Graph:
    """All situations of the task itself."""
    heard = np.where(np.eye(K, dtype=bool), RELIABILITY, 1 - RELIABILITY)
    return Graph.of(helpdesk_problem(heard, np.eye(K), np.full(K, 1 / K)), HORIZON)


@dataclass(frozen=True)
class Standing:
    """How things stand at each node of a layer: arrays [N, ...]."""

    net: np.ndarray
    """[N, K], "broken" less "fine", of each part less that of the least"""
    last: np.ndarray
    """[N], the part tested last; -1 if none"""
    order: np.ndarray
    """[N, K], parts: the one tested last first, then by falling net"""

    @property
    def keys(self) -> list[np.ndarray]:
        """[N] of each length: how parts stand in order; how the leader stands; whether any was tested."""
        ordered = np.take_along_axis(self.net, self.order, 1)
        tested = self.last >= 0
        whole = (ordered * 16 ** np.arange(K)).sum(1) * 2 + tested
        top = np.sort(ordered, axis=1)
        lead = (top[:, -1] - top[:, -2]) * 4 + (ordered[:, 0] == top[:, -1]) * 2 + tested
        return [whole, lead, tested.astype(int)]


@cache
def standings() -> tuple[Standing, ...]:
    """Of every layer."""
    found, log_odds = [], np.log(RELIABILITY / (1 - RELIABILITY))
    for layer in desk_graph().layers:
        logs = np.log(layer.beliefs)
        net = np.round((logs - logs.min(1, keepdims=True)) / log_odds).astype(int)
        last = np.where(layer.seen == OVER + 1, -1, layer.seen // 2)
        first = np.where(np.arange(K) == last[:, None], 100, net)
        found.append(Standing(net, last, np.argsort(-first, axis=1, kind="stable")))
    return tuple(found)


@cache
def behavior() -> Policy:
    """The whimsical desk."""
    return tuple(
        np.array(
            [
                behavior_probabilities(n, None if k < 0 else k)
                for n, k in zip(s.net.tolist(), s.last.tolist(), strict=True)
            ]
        )
        for s in standings()
    )


@dataclass(frozen=True)
class Candidate:
    """A policy, and the graph whose nodes it remembers: the task's own, or that of a learnt model."""

    graph: Graph
    policy: Policy

    def value_in(self, problem: POMDP) -> float:
        """What it earns in a problem whose states stay as they are, forward over pairs of node and state."""
        S, A, O = problem.shape
        sees = problem.emissions.dense().reshape(A, S, O)
        goes = problem.continuing().dense().reshape(A, S, S).sum(2)
        told = goes[:, None] * sees.transpose(0, 2, 1)  # [A, O, S], P(going on and seen | state, act)
        acts, heard = np.nonzero(told.any(2))
        reached, total = problem.start[None], 0.0
        for layer, chances in zip(self.graph.layers, self.policy, strict=True):
            did = reached[:, None] * chances[:, :, None]  # [N, A, S]
            total += float((did.sum(0) * problem.expected_rewards()).sum())
            after = layer.after[:, acts, heard].ravel()
            flow = (did[:, acts] * told[acts, heard]).reshape(-1, S)
            reached = np.stack([np.bincount(after, flow[:, s]) for s in range(S)], axis=1)
        return total

    def on(self, log: Episodes) -> np.ndarray:
        """[B, A, 2 K], what it would do at logged histories of the task."""
        seen = np.pad(log.at([x.seen for x in desk_graph().layers]), [(0, 0), (0, 1)])
        node, found = np.zeros(len(log.mask), int), []
        for k, layer in enumerate(self.graph.layers):
            found.append(self.policy[k][node])
            heard = np.minimum(seen[:, k + 1], OVER)
            node = np.where(log.mask[:, k], layer.after[node, log.acts[:, k], heard], 0)
        return np.stack(found, axis=1)

    def step(self, t: float) -> Candidate:
        """A coin at each turn between the logged desk and this policy."""
        desk, node = [], np.zeros(1, int)
        for own, layer, before in zip(self.graph.layers, desk_graph().layers, behavior(), strict=True):
            desk.append(before[node])
            at = np.argwhere(own.goes > 0).T
            there, meant = own.after[tuple(at)], layer.after[node[at[0]], at[1], at[2]]
            node = np.zeros(int(own.after.max()) + 1, int)
            node[there] = meant
            if (node[there] != meant).any():
                raise ValueError("a belief of the model follows histories between which the desk tells apart")
        return Candidate(self.graph, mixed(t, tuple(desk), self.policy))


# --- methods ---


@dataclass(frozen=True)
class Ordered:
    """Logs as tables read them: parts by their place in the order of the moment."""

    log: Episodes
    keys: list[np.ndarray]
    """[B, A+1] of each length"""
    acts: np.ndarray
    """[B, A] int, place of the part, and K more for a fix"""

    @staticmethod
    def of(log: Episodes) -> Ordered:
        """Read them."""
        levels = [log.at([s.keys[i] for s in standings()]) for i in range(3)]
        place = np.argsort(log.at([s.order for s in standings()]), axis=2)  # [B, A, K], of each part
        acts = np.take_along_axis(place, (log.acts % K)[:, :, None], 2)[:, :, 0] + log.acts // K * K
        return Ordered(log, [np.pad(x, [(0, 0), (0, 1)]) for x in levels], np.where(log.mask, acts, 0))

    def played(self, target: np.ndarray, rewards: np.ndarray | None = None) -> Played:
        """The logs beside what a policy would do, [B, A+1, 2 K] by places."""
        mask = self.log.mask
        pays = self.log.rewards if rewards is None else rewards
        return Played(self.acts, pays, mask, target, np.ones(len(mask), bool))


def to_parts(of_keys: Callable[[int, list[np.ndarray]], np.ndarray]) -> list[np.ndarray]:
    """[N, 2 K] of each layer, by parts, from numbers by places: `of_keys(layer, keys)`."""
    found = []
    for k, s in enumerate(standings()):
        by_place = of_keys(k, s.keys)
        by_part = np.empty_like(by_place)
        for half in (0, K):
            np.put_along_axis(by_part, s.order + half, by_place[:, half : half + K], axis=1)
        found.append(by_part)
    return found


def to_places(of_parts: np.ndarray, log: Episodes) -> np.ndarray:
    """[B, A+1, 2 K] by places, from probabilities [B, A, 2 K] by parts."""
    order = log.at([s.order for s in standings()])
    both = np.concatenate([order, order + K], axis=2)
    return np.pad(np.take_along_axis(of_parts, both, 2), [(0, 0), (0, 1), (0, 0)])


def clone(logs: Ordered) -> Policy:
    """Frequencies of acts, those of rare situations drawn towards those of like ones."""
    mask, size = logs.log.mask, 2 * K
    everyone = np.bincount(logs.acts[mask], minlength=size) + 1.0
    tables: list[tuple[np.ndarray, np.ndarray]] = []
    base = everyone / everyone.sum()
    for level in reversed(logs.keys):
        of, acts = level[:, :-1][mask], logs.acts[mask]
        names, first, cell = np.unique(of, return_index=True, return_inverse=True)
        counts = np.zeros((len(names), size))
        np.add.at(counts, (cell.reshape(-1), acts), 1.0)
        shorter = looked_up(tables, base, [x[:, :-1][mask][first] for x in logs.keys])
        tables.append((names, (counts + FEW * shorter) / (counts.sum(1, keepdims=True) + FEW)))
    return tuple(to_parts(lambda _, keys: looked_up(tables, base, keys)))


def values_by_part(tables: TabularQ) -> list[np.ndarray]:
    """[N, 2 K] of each layer."""
    return to_parts(lambda k, keys: tables.at(k, keys))


def monte_carlo(logs: Ordered) -> list[np.ndarray]:
    """Q of the logged agent: means of what was still earned."""
    ahead = np.cumsum(logs.log.rewards[:, ::-1], axis=1)[:, ::-1]
    even = np.full((*logs.keys[0].shape, 2 * K), 1 / (2 * K))
    return values_by_part(fit_tables(logs.keys, logs.played(even, ahead), 0.0))


def fitted(
    logs: Ordered, improve: Callable[[Sequence[np.ndarray]], Policy], before: Policy
) -> list[np.ndarray]:
    """Q after some rounds of evaluation and improvement on the logs."""
    policy, q = before, list[np.ndarray]()
    for _ in range(ROUNDS):
        target = to_places(logs.log.at(policy), logs.log)
        q = values_by_part(fit_tables(logs.keys, logs.played(target), 1.0))
        policy = improve(q)
    return q


def expectile(q: Sequence[np.ndarray], policy: Policy, tau: float = TAU) -> Policy:
    """The policy whose mean of q is its expectile under `policy` (IQL's value of a state)."""
    found = []
    for x, p in zip(q, policy, strict=True):
        v = (p * x).sum(1, keepdims=True)
        for _ in range(30):
            w = p * np.where(x > v, tau, 1 - tau)
            w = w / w.sum(1, keepdims=True)
            v = (w * x).sum(1, keepdims=True)
        found.append(w)
    return tuple(found)


def greedy(q: Sequence[np.ndarray]) -> Policy:
    """The best act; equals share."""
    best = [(x >= x.max(1, keepdims=True) - 1e-9).astype(float) for x in q]
    return tuple(b / b.sum(1, keepdims=True) for b in best)


def mixture(log: Episodes, states: int, rng: np.random.Generator, starts: int = 5) -> POMDP:
    """A model of `states` hidden states that stay as they are, by EM: the best of some starts."""
    B, k = len(log.mask), np.arange(K)
    heard = np.zeros((B, 4 * K))  # of each conversation: broken, fine, right, wrong, by part
    row, turn = np.nonzero(log.mask)
    act, paid = log.acts[row, turn], log.rewards[row, turn]
    # What a test told is seen at the next turn; of the last turn's nobody learns.
    seen = log.at([x.seen for x in desk_graph().layers])
    after = np.pad(seen, [(0, 0), (0, 1)])[row, turn + 1]
    known = np.pad(log.mask, [(0, 0), (0, 1)])[row, turn + 1]
    tested, fixed = (act < K) & known, act >= K
    np.add.at(heard, (row[tested], act[tested] + np.where(after[tested] % 2, 0, K)), 1.0)
    np.add.at(heard, (row[fixed], act[fixed] + np.where(paid[fixed] > 0, K, 2 * K)), 1.0)
    best, found = -np.inf, None
    for _ in range(starts):
        p, prior = rng.uniform(0.2, 0.8, (2, states, K)), np.full(states, 1 / states)
        for _ in range(60):
            logs = np.log(np.concatenate([p[0], 1 - p[0], p[1], 1 - p[1]], axis=1))
            joint = heard @ logs.T + np.log(prior)
            top = joint.max(1, keepdims=True)
            share = np.exp(joint - top)
            likelihood = float((top[:, 0] + np.log(share.sum(1))).sum())
            share /= share.sum(1, keepdims=True)
            counts = share.T @ heard + 0.5
            yes, no = counts[:, [*k, *(k + 2 * K)]], counts[:, [*(k + K), *(k + 3 * K)]]
            p = (yes / (yes + no)).reshape(states, 2, K).transpose(1, 0, 2)
            prior = (share.sum(0) + 1) / (B + states)
        if likelihood > best:
            best, found = likelihood, (p[0], p[1], prior)
    assert found is not None
    return helpdesk_problem(*found)


def made_from(log: Episodes, rng: np.random.Generator) -> tuple[dict[str, Candidate], list[POMDP]]:
    """Candidates of every method, and three models of four states: of all logs, and of two resamples."""
    logs = Ordered.of(log)
    before, q = clone(logs), monte_carlo(logs)
    implicit = fitted(logs, lambda q: expectile(q, before), before)
    policies = {
        "clone": before,
        "Monte Carlo, beta 4": tilted(before, q, 4),
        "Monte Carlo, beta 16": tilted(before, q, 16),
        "one step, greedy": greedy(q),
        "IQL, beta 4": tilted(before, implicit, 4),
        "IQL, beta 16": tilted(before, implicit, 16),
        "fitted Q iteration": greedy(fitted(logs, greedy, before)),
    }
    found = {name: Candidate(desk_graph(), p) for name, p in policies.items()}
    models = [mixture(log, K, rng)]
    for _ in range(2):
        models.append(mixture(log.some(rng.integers(len(log.mask), size=len(log.mask))), K, rng))
    for name, model in (("plan", models[0]), ("plan, two states", mixture(log, 2, rng))):
        graph = Graph.of(model, HORIZON)
        found[name] = Candidate(graph, graph.optimal())
    return found, models
