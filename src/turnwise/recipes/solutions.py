"""The run folder of a solved POMDP: policy, bounds over time, the value of information, a report page.

`evaluation/pages/solutions/` shows what is written here.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from turnwise.envs.pomdp import POMDP
from turnwise.evaluation.pages.report import write_report
from turnwise.exact.alpha_policy import RANDOM, AlphaPolicy, save_policy
from turnwise.exact.controller_search import Best
from turnwise.exact.files.appl import write_appl
from turnwise.exact.files.saved import save_problem
from turnwise.exact.reference_policies import best_open_loop, qmdp_value
from turnwise.exact.sarsop.search import first_beliefs
from turnwise.exact.sarsop.solve import Solution
from turnwise.exact.simulation import WatchedSteps, horizon_of, watch
from turnwise.recipes.solved import CONTROLLER, POLICY, PROBLEM
from turnwise.run.files.whole import whole_file
from turnwise.run.folder import write_json

WATCHED, FEWEST = 64, 4
"""simulated episodes whose beliefs and looks are measured: so many, and no fewer where each is slow"""
WORK = 2e8
"""products that one step of all of them may take, some tenths of a second"""
WATCHED_STEPS = 60
"""steps that are measured of each of them"""
EXAMPLES = 3
"""episodes that are kept step by step"""
GRAPH_NODES = 40
"""a policy graph with more is not drawn"""
REFERENCE_SECONDS = 10.0
"""seconds for each policy that the optimum is compared with"""
NAMES = 400
"""solution.json keeps the names of at most so many states"""


def save_policies(folder: Path, problem: POMDP, found: Solution, result: dict[str, Any]) -> None:
    """Write problem.npz, policy.npz, policy.policy (APPL) and result.json, before anything else can fail."""
    save_problem(problem, folder / PROBLEM)
    save_policy(found.policy, folder / POLICY)
    write_appl(found.policy, folder / "policy.policy", problem.name)
    write_json(folder / "result.json", result)


def save_solution(
    folder: Path,
    problem: POMDP,
    found: Solution,
    result: dict[str, Any],
    rng: np.random.Generator,
    seconds: float,
) -> Path:
    """Write solution.json and report.html, beside what `save_policies` wrote; the path of the page.

    What is computed for them takes some `seconds`: a third for the policy's steps, the rest for the others'
    values.
    """
    until = time.perf_counter() + seconds
    steps = min(WATCHED_STEPS, horizon_of(problem)[0])
    O = problem.shape[2]
    each = found.policy.alphas.size * O  # products of one step of one episode
    episodes = int(np.clip(WORK / max(1, each), FEWEST, WATCHED))
    looks = watch(problem, found.policy, rng, episodes, steps, time.perf_counter() + seconds / 3)
    solution = {
        **result,
        "episodic": problem.episodic,
        "state_names": list(problem.states) if len(problem.states) <= NAMES else None,
        "action_names": list(problem.actions),
        "observation_names": list(problem.observations),
        "trace": [list(row) for row in found.trace],
        "references": references(problem, found, until),
        "value_over_belief": value_over_belief(problem, found.policy),
        "graph": policy_graph(problem, found.policy),
        "information": information(problem, looks, episodes),
    }
    write_json(folder / "solution.json", solution)
    write_json(folder / "result.json", result)
    return write_report(folder)


def save_controller(folder: Path, problem: POMDP, best: Best, result: dict[str, Any]) -> Path:
    """Write controller.npz (array `probabilities`), solution.json and report.html; the path of the page."""
    save_problem(problem, folder / PROBLEM)
    with whole_file(folder / CONTROLLER) as part, part.open("wb") as file:
        np.savez_compressed(file, probabilities=best.controller.probabilities)
    inputs = [*problem.observations, *(["(nothing yet)"] if problem.initial is None else [])]
    small = best.controller.probabilities.size <= 20_000
    solution = {
        **result,
        "episodic": problem.episodic,
        "action_names": list(problem.actions),
        "input_names": inputs,
        "starts": list(best.values),
        "controller": best.controller.probabilities.tolist() if small else None,
    }
    write_json(folder / "solution.json", solution)
    write_json(folder / "result.json", result)
    return write_report(folder)


def references(problem: POMDP, found: Solution, until: float) -> list[dict[str, Any]]:
    """Values of policies that cannot, or do not, look for information, beside the optimum.

    They are ready at `until` (of `time.perf_counter`), with what was proved by then.

    `policy` says which one a row is: `optimal`, `qmdp` (missing at discount 1) or `open-loop`.
    """
    gap = max(1e-4, min(found.gap, 1e-3))
    rows = [{"policy": "optimal", "name": "optimal policy", "lower": found.lower, "upper": found.upper}]
    left = lambda: min(REFERENCE_SECONDS, max(0.05, until - time.perf_counter()))  # noqa: E731
    qmdp = qmdp_value(problem, gap=gap, deadline=left() / 2)
    if qmdp is not None:
        row = {"lower": qmdp[0], "upper": min(qmdp[1], found.upper)}  # none is better than the best
        rows.append({"policy": "qmdp", "name": "QMDP", **row})
    blind = best_open_loop(problem, gap=gap, deadline=left())
    row = {"lower": blind.lower, "upper": min(blind.upper, found.upper)}
    rows.append({"policy": "open-loop", "name": "best open-loop policy", **row})
    return rows


def value_over_belief(problem: POMDP, policy: AlphaPolicy) -> dict[str, Any] | None:
    """The policy's value and action over all beliefs of 2 or 3 states, on a grid; None with more states."""
    S = len(problem.states)
    if S == 2:
        p = np.linspace(0, 1, 201)
        beliefs = np.stack([1 - p, p], 1)
    elif S == 3:
        n = 60
        grid = [(i, j, n - i - j) for i in range(n + 1) for j in range(n + 1 - i)]
        beliefs = np.array(grid) / n
    else:
        return None
    best = policy.best(beliefs)
    return {
        "beliefs": beliefs.tolist(),
        "values": (beliefs @ policy.alphas.T).max(1).tolist(),
        "actions": policy.actions[best].tolist(),
        "vectors": policy.alphas.tolist() if S == 2 else None,
    }


def policy_graph(problem: POMDP, policy: AlphaPolicy) -> dict[str, Any]:
    """The policy as a controller: nodes with actions, and where each possible observation leads.

    `nodes` is None if there are more than are drawn.
    """
    S, _, O = problem.shape
    e = problem.emissions
    if len(policy) > GRAPH_NODES:
        return {"count": len(policy), "nodes": None}
    can = np.zeros((len(problem.actions), O), bool)
    can[e.of_entries() // S, e.indices] = True
    starts = sorted({int(policy.best(b[None])[0]) for _, b in first_beliefs(problem)})
    nodes = [
        {"action": int(a), "name": "at random" if a == RANDOM else problem.actions[a]} for a in policy.actions
    ]
    edges: dict[tuple[int, int], list[int]] = {}
    assert policy.successors is not None  # plans of ours say how they go on
    for i, a in enumerate(policy.actions):
        for o in range(O):
            if a == RANDOM or can[a, o]:
                edges.setdefault((i, int(policy.successors[i, o])), []).append(o)
    listed = [{"from": i, "to": j, "observations": seen} for (i, j), seen in edges.items()]
    return {"count": len(policy), "nodes": nodes, "edges": listed, "starts": starts}


def information(problem: POMDP, looks: WatchedSteps, episodes: int) -> dict[str, Any]:
    """How entropy falls over time, what each action gives up and what its look is worth, and a few episodes.

    `entropy` has rows [step, mean, 10% quantile, 90% quantile, episodes that still run], in nats.
    """
    by_time = []
    for t in range(int(looks.time.max()) + 1):
        h = looks.entropy[looks.time == t]
        low, high = np.quantile(h, [0.1, 0.9])
        by_time.append([t, float(h.mean()), float(low), float(high), len(h)])
    actions = []
    for a, name in enumerate(problem.actions):
        here = looks.action == a
        if here.any():
            actions.append(
                {
                    "name": name,
                    "share": float(here.mean()),
                    "entropy": float(looks.entropy[here].mean()),
                    "given_up": float(looks.given_up[here].mean()),
                    "look": float(looks.look[here].mean()),
                    "more": float(looks.more[here].mean()),
                    "pays": float(looks.pays[here].mean()),
                }
            )
    examples = []
    for lane in range(min(EXAMPLES, int(looks.lane.max()) + 1)):
        at = np.flatnonzero(looks.lane == lane)
        at = at[np.argsort(looks.time[at])][:25]
        examples.append(
            [
                {
                    "action": problem.actions[looks.action[i]],
                    "observation": problem.observations[looks.observation[i]],
                    "reward": float(looks.reward[i]),
                    "entropy": float(looks.entropy[i]),
                    "given_up": float(looks.given_up[i]),
                    "look": float(looks.look[i]),
                    "more": float(looks.more[i]),
                    "pays": bool(looks.pays[i]),
                }
                for i in at
            ]
        )
    return {"episodes": episodes, "entropy": by_time, "actions": actions, "examples": examples}
