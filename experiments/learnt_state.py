"""Q-learning and planning on a learnt state, beside Q-learning on histories and on observations.

    python experiments/learnt_state.py                             everything, resumable
    python experiments/learnt_state.py --worlds tiger --seeds 0    some of it
    python experiments/learnt_state.py --table                     merge what is there: .json, .md, .svg

All learn from the same logged episodes of uniformly random actions. A rule turns what has happened into one
symbol z, and Q-learning replays the logs until Q(z,a) does not change any more:

    Q(z,a) = mean over logged (z,a,r,z') of r + gamma max_a' Q(z',a'),   actions that were tried in z' only

Only the rule differs: *observation*, what is seen now; *window(k)*, the last k observations and the k - 1
actions between them; *belief*, which of 100 groups (k-means, of logged ones) is nearest to the belief in the
learnt POMDP, whose number of states was chosen by held-out likelihood. A window that was never logged is read
as the longest shorter one that was. *Plan* is the plan of SARSOP in the same learnt POMDP. *Promised* is the
value that Q or the plan gives to the start; *in the world* is the return of acting greedily, in 20,000
episodes. Agents with a GRU that learn by acting themselves are in q_on_observations.md and memory_agents.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from common import (
    add_choice,
    add_seeds,
    make_part,
    options,
    parse,
    pyplot,
    read_truths_and_rows,
    story_of,
    write_figure,
    write_page,
    write_results,
)
from scipy import sparse
from worlds import (
    WORLDS,
    PlanAgent,
    add_models,
    kept,
    logged_beliefs,
    plan,
    references,
    returns_of,
    summary,
)

from turnwise.exact.learning.model import LearntModel
from turnwise.exact.learning.sequences import Sequences
from turnwise.run.rehearsal import at_most

EPISODES, GROUPS, SWEEPS = 20_000, 100, 2000
NOTHING = -1
"""what stands in a window for what had not happened yet"""
METHODS = ("observation", "window(2)", "window(4)", "window(8)", "belief", "plan")


class Memory(Protocol):
    """What is remembered, as a row of an array, and the symbol that it is read as."""

    def logged(self, logs: Sequences) -> np.ndarray:
        """[M, ...], what is remembered before each logged step."""
        ...

    def begin(self, firsts: np.ndarray) -> np.ndarray:
        """[U, ...], at the start."""
        ...

    def after(self, remembered: np.ndarray, actions: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """[U, ...], a step later."""
        ...

    def symbols(self, remembered: np.ndarray) -> np.ndarray:
        """[U], int64."""
        ...


class Window:
    """The last `k` observations and the actions between them: o, a, o, ..., a, o, the latest at the end."""

    def __init__(self, k: int, logs: Sequences):
        self.k = k
        self.known: dict[bytes, int] = {}
        for row in self.logged(logs):
            # Every shorter window inside is known too, so that a strange one can be read as that.
            for j in range(k):
                key = row[2 * j :].tobytes()
                if key not in self.known:
                    self.known[key] = len(self.known)

    def begin(self, firsts: np.ndarray) -> np.ndarray:
        """Nothing but the first observation."""
        found = np.full((len(firsts), 2 * self.k - 1), NOTHING, np.int32)
        found[:, -1] = firsts
        return found

    def after(self, remembered: np.ndarray, actions: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """Shifted by one step."""
        found = np.empty_like(remembered)
        found[:, :-2] = remembered[:, 2:]
        if self.k > 1:
            found[:, -2] = actions
        found[:, -1] = seen
        return found

    def logged(self, logs: Sequences) -> np.ndarray:
        """Windows before all logged steps."""
        found = np.empty((len(logs.actions), 2 * self.k - 1), np.int32)
        now, here, at = self.begin(logs.firsts), np.arange(len(logs)), logs.offsets[:-1]
        while len(here):
            found[at] = now
            going = at + 1 < logs.offsets[1:][here]
            now = self.after(now[going], logs.actions[at[going]], logs.observations[at[going]])
            here, at = here[going], at[going] + 1
        return found

    def symbols(self, remembered: np.ndarray) -> np.ndarray:
        """The longest window that was logged; 0 if not even its observation was."""
        return np.array([self._symbol(row) for row in remembered], np.int64)

    def _symbol(self, row: np.ndarray) -> int:
        for j in range(self.k):
            found = self.known.get(row[2 * j :].tobytes())
            if found is not None:
                return found
        return 0


class Belief:
    """The belief in a model, read as the nearest of some groups of logged ones."""

    def __init__(self, model: LearntModel, logs: Sequences, seed: int):
        from sklearn.cluster import KMeans

        self.model = model
        sample = self.logged(logs)
        rows = np.random.default_rng(seed).permutation(len(sample))[:20_000]
        different = len(np.unique(sample[rows].round(6), axis=0))
        groups = KMeans(min(GROUPS, different), n_init=1, random_state=seed).fit(sample[rows])
        self.centres = groups.cluster_centers_

    def begin(self, firsts: np.ndarray) -> np.ndarray:
        """Beliefs after first observations."""
        return self.model.first(firsts)

    def after(self, remembered: np.ndarray, actions: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """Bayes' filter."""
        return self.model.update(remembered, actions, seen)[0]

    def logged(self, logs: Sequences) -> np.ndarray:
        """Beliefs before all logged steps."""
        return logged_beliefs(self.model, logs)

    def symbols(self, remembered: np.ndarray) -> np.ndarray:
        """The nearest centre."""
        # |b - c|^2 without |b|^2, which is the same for all centres.
        return (np.square(self.centres).sum(1) - 2 * remembered @ self.centres.T).argmin(1)


@dataclass(frozen=True)
class Greedy:
    """Acts greedily by a table, Q of symbols."""

    memory: Memory
    q: np.ndarray

    def begin(self, firsts: np.ndarray) -> np.ndarray:
        """What the memory begins with."""
        return self.memory.begin(firsts)

    def best(self, remembered: np.ndarray) -> np.ndarray:
        """The best action of each symbol."""
        return self.q[self.memory.symbols(remembered)].argmax(1)

    def after(self, remembered: np.ndarray, actions: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """What the memory makes of a step."""
        return self.memory.after(remembered, actions, seen)


def q_learning(logs: Sequences, symbols: np.ndarray, size: int, gamma: float) -> np.ndarray:
    """[size, A], the table at which replayed Q-learning comes to rest; -inf for what was never tried.

    A step that leads to where nothing was ever tried says nothing of what follows, and is left out.
    """
    assert logs.rewards is not None
    A, M = logs.action_symbols, len(logs.actions)
    last = np.zeros(M, bool)
    last[logs.offsets[1:] - 1] = True
    over = np.zeros(M, bool)
    over[logs.offsets[1:] - 1] = logs.ended
    used = ~last | over  # behind a cut nothing is known
    after = np.append(symbols[1:], 0)
    pair = symbols * A + logs.actions
    while True:
        known = np.bincount(symbols[used], minlength=size) > 0
        blind = used & ~over & ~known[after]
        if not blind.any():
            break
        used &= ~blind
    n = np.bincount(pair[used], minlength=size * A).astype(np.float64)
    share = 1 / np.where(n > 0, n, 1)
    rewards = np.bincount(pair[used], logs.rewards[used], minlength=size * A) * share
    on = used & ~over
    moves = sparse.csr_matrix(
        (share[pair[on]], (pair[on], after[on])), shape=(size * A, size), dtype=np.float64
    )
    q, tried = np.zeros(size * A), n > 0
    for _ in range(at_most(50, SWEEPS)):
        v = np.where(tried, q, -np.inf).reshape(size, A).max(1)
        new = rewards + gamma * (moves @ np.where(known, v, 0.0))
        done = np.abs(new - q).max() < 1e-9
        q = new
        if done:
            break
    return np.where(tried, q, -np.inf).reshape(size, A)


def shorter(logs: Sequences, window: Window, gamma: float) -> np.ndarray:
    """Q of a window and, in the same table, of all shorter ones: each length learns by itself."""
    size = len(window.known)
    q = np.full((size, logs.action_symbols), -np.inf)
    rows = window.logged(logs)
    for j in range(window.k):
        keys = [row[2 * j :].tobytes() for row in rows]
        found = q_learning(logs, np.array([window.known[k] for k in keys], np.int64), size, gamma)
        q = np.where(np.isfinite(found), found, q)
    return q


def one(name: str, seed: int, models: Path) -> list[dict[str, Any]]:
    """All methods on the logs of one seed."""
    problem = WORLDS[name].problem()
    logs, learnt, _ = kept(models, name, seed)
    rows = []
    for method in METHODS:
        states = None
        if method == "plan":
            planner, solution = plan(learnt, problem.discount)
            agent, promised, states = PlanAgent(planner), solution.lower, learnt.shape[0]
        else:
            if method == "belief":
                memory: Memory = Belief(learnt, logs, seed)
                symbols = memory.symbols(memory.logged(logs))
                q, states = q_learning(logs, symbols, len(memory.centres), problem.discount), learnt.shape[0]
            else:
                k = 1 if method == "observation" else int(method[7:-1])
                memory = Window(k, logs)
                q = shorter(logs, memory, problem.discount)
                states = None
            agent = Greedy(memory, q)
            promised = float(q[memory.symbols(memory.begin(logs.firsts))].max(1).mean())
        rng = np.random.default_rng((seed, 2))
        world = summary(returns_of(problem, agent, at_most(500, EPISODES), rng))
        rows.append(
            {"world": name, "seed": seed, "method": method, "states": states, "logs": len(logs),
             "promised": promised, **world, "difference": promised - world["mean"]}
        )  # fmt: skip
    return rows


def figure(truth: dict[str, Any], rows: list[dict[str, Any]]) -> Any:
    """Returns in the world by method, one dot a seed, beside what was promised."""
    plt = pyplot()
    plot, axes = plt.subplots(1, len(truth), figsize=(11, 3.3), constrained_layout=True, squeeze=False)
    for place, (name, t) in zip(axes.flat, truth.items(), strict=True):
        mine = [r for r in rows if r["world"] == name]
        x = np.array([METHODS.index(r["method"]) for r in mine])
        place.plot(x - 0.12, [r["promised"] for r in mine], "_", color="#cc4433", label="promised")
        half = [r["half"] for r in mine]
        dots = {"fmt": "o", "markersize": 3.5, "linewidth": 1, "color": "#3366cc", "label": "in the world"}
        place.errorbar(x + 0.12, [r["mean"] for r in mine], half, **dots)
        for label, at, style in (
            ("best without memory", t["stochastic"], "--"),
            ("optimum", t["lower"], "-"),
        ):
            place.axhline(at, color="black", linestyle=style, linewidth=0.8, label=label)
        place.set_xticks(range(len(METHODS)), METHODS, rotation=30, fontsize=7)
        place.set_title(name, fontsize=10)
        place.tick_params(labelsize=7)
    axes[0, 0].set_ylabel("discounted return", fontsize=8)
    axes[0, 0].legend(fontsize=7)
    return plot


def merge(runs: Path) -> None:
    """Write everything that is there as .json, .md and .svg."""
    truths, parts = read_truths_and_rows(runs)
    rows = [r for name in WORLDS for part in parts for r in part if r["world"] == name]
    truth = {name: truths[name] for name in WORLDS if any(r["world"] == name for r in rows)}
    if not rows:
        return
    lines = ["| world | det | stochastic | optimum |", "|---|---|---|---|"]
    for name, t in truth.items():
        lines.append(f"| {name} | {t['det']:.4f} | {t['stochastic']:.4f} | {t['lower']:.4f} |")
    lines += [
        "",
        "| world | method | seed | logs | promised | in the world | 95% interval | promised minus world "
        "| optimum |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        label = r["method"] + ("" if r["states"] is None else f", {r['states']} states")
        low, high = r["mean"] - r["half"], r["mean"] + r["half"]
        lines.append(
            f"| {r['world']} | {label} | {r['seed']} | {r['logs']:,} | {r['promised']:.4f} | {r['mean']:.4f} "
            f"| {low:.4f} to {high:.4f} | {r['difference']:+.4f} | {truth[r['world']]['lower']:.4f} |"
        )
    lines.append("\n![Returns by what stands for the state](learnt_state.svg)")
    head = f"# Q-learning and planning on a learnt state\n\n{story_of(__doc__)}\n\n"
    write_page(runs, "learnt_state", head + "\n".join(lines))
    write_results(runs, "learnt_state", {"truth": truth, "rows": rows})
    write_figure(runs, "learnt_state", figure(truth, rows))
    print("\n".join(lines))


def main() -> None:
    """Make the parts that are missing, and merge."""
    parser = options(__doc__, "learnt_state")
    add_choice(parser, "--worlds", WORLDS, "worlds")
    add_models(parser)
    add_seeds(parser, 0, 1, 2)
    a = parse(parser)
    for seed in [] if a.table else a.seeds:
        for name in a.worlds:
            make_part(a.runs / f"truth-{name}.json", partial(references, name))
            make_part(a.runs / f"{name}-{seed}.json", partial(one, name, seed, a.models))
    merge(a.runs)


if __name__ == "__main__":
    main()
