"""HelpDesk: what 100 to 20,000 logged conversations are worth to ways of learning from acts.

    python experiments/number_of_logs.py                             everything, resumable
    python experiments/number_of_logs.py --methods pomdp-acts --sizes 100 --seeds 0    some of it
    python experiments/number_of_logs.py --table                     merge what is there: .json, .md, .svg

Each seed has its own logs, of which the first n are learnt from, and its own 2,000 live customers; what is
heard is read by the codebook, what is said are logged sentences of the act. Openings hardly repeat, and are
one symbol.

- *learnt POMDP, acts given*: the messages carry their acts (8 of the agent, 10 answers).
- *learnt POMDP, sentences*: nobody says what was meant, each different sentence is a symbol.
- *IQL per act*: implicit Q-learning with a GRU over the given acts.

A learnt POMDP is fitted by EM; its number of hidden states (1 to 6) and its smoothing are those that explain
held-out conversations best, and SARSOP plans in it. *Promised* is what a method thinks its policy earns: the
plan's lower bound in the model, or the Q of the act that is chosen at the opening. *In the world* is the mean
return of the live conversations. From 20,000 logs of bare sentences, per token and per turn, the figures of
helpdesk.md are quoted, not made here.
"""

from __future__ import annotations

import json
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import (
    HERE,
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
from worlds import learnt, summary

import turnwise as tw
from turnwise.data.acts.labelled import by_field, by_function, by_sentence
from turnwise.data.acts.talks import ActLogs, Codes, cut_turns
from turnwise.data.files.logs import read_logs
from turnwise.envs.tasks.helpdesk.exact import behavior_value, optimal_value
from turnwise.envs.tasks.helpdesk.task import HelpDesk
from turnwise.exact.learning.planner import Planner
from turnwise.exact.learning.sequences import Sequences
from turnwise.exact.sarsop.solve import solve
from turnwise.rollout.acts.agent import ActAgent
from turnwise.rollout.acts.chooser import Chooser, Prefix, logged_acts
from turnwise.rollout.acts.conversations import converse_in_acts
from turnwise.rollout.acts.plan import PlanChooser
from turnwise.rollout.acts.voice import LoggedVoice
from turnwise.run.rehearsal import at_most

SIZES, CONVERSATIONS, STATES = (100, 300, 1000, 3000, 8000, 20_000), 2000, (1, 2, 3, 4, 5, 6)
DEADLINE = 30.0
"""seconds of the solver"""
METHODS = {
    "pomdp-acts": "learnt POMDP, acts given",
    "pomdp-sentences": "learnt POMDP, sentences",
    "iql-acts": "IQL per act, acts given",
}
COLOURS = {"pomdp-acts": "#3366cc", "pomdp-sentences": "#cc4433", "iql-acts": "#33aa55"}
QUOTED = ("ILQL", "Monte-Carlo Q", "turn-level IQL", "BC")
"""rows of helpdesk.json that stand beside"""


def codes_of(logs: Any, given: bool) -> Codes:
    """Both sides by the field `act`, or by their sentences. All openings are one symbol."""
    turns = [cut_turns(d.messages) for d in logs]
    said = [u for t in turns for u in t.said]
    heard = [u for t in turns for u in t.heard if u is not None]
    opening = by_function([t.opening for t in turns], lambda *_: "opening", "opening_acts", False)
    if given:
        return Codes(by_field(said, "agent_acts", True), by_field(heard, "partner_acts", True), opening)
    return Codes(by_sentence(said, True), by_sentence(heard, True), opening)


def sequences_of(logs: ActLogs) -> Sequences:
    """What tabular models are fitted to."""
    return Sequences(
        np.concatenate([t.acts for t in logs]),
        np.concatenate([t.answers for t in logs]),
        np.concatenate([t.rewards for t in logs]),
        np.append(0, np.cumsum([len(t) for t in logs])),
        np.array([t.terminated for t in logs]),
        np.array([t.first for t in logs]),
        len(logs.acts),
        len(logs.answers),
        len(logs.openings),
    )


def planned(codes: Codes, logs: ActLogs, seed: int) -> tuple[Chooser, dict[str, Any]]:
    """A plan in the POMDP that is learnt from the logs, and what is known of it."""
    model, choice = learnt(sequences_of(logs), STATES, np.random.default_rng((seed, 1)))
    can = LoggedVoice.of(codes.agent).speakable  # type: ignore[arg-type]
    solution = solve(model.pomdp(1.0), gap=1e-2, deadline=at_most(1, int(DEADLINE)))
    planner = Planner.of(model, np.flatnonzero(can), solution.policy, 1.0)
    facts = {"states": model.shape[0], "promised": solution.lower, "upper": solution.upper, "choice": choice}
    return PlanChooser(planner, codes.acts), facts


def guided(codes: Codes, logs: Any, seed: int) -> tuple[Chooser, dict[str, Any]]:
    """Implicit Q-learning on the acts, and what it thinks its best act at the opening is worth."""
    with tempfile.TemporaryDirectory() as folder:
        policy = tw.fit(
            tw.ActIQL(), logs, out=Path(folder) / "run", acts=codes, seed=seed, quiet=True, estimate=False
        )
    chooser = policy.agent.chooser
    policy_logits, values = chooser.read([Prefix.of(0)])
    chances = chooser.probabilities(policy_logits, values)[0]
    q = values.q[:, 0, 0].amin(0)
    return chooser, {"promised": float((chances * q).sum())}


def one(method: str, size: int, seed: int) -> dict[str, Any]:
    """Learn from the first `size` logs of a seed, and talk to its customers."""
    given = not method.endswith("sentences")
    n = at_most(60, size)
    logs = read_logs(list(HelpDesk(acts=given).rows(n, seed)), quiet=True)
    codes = codes_of(logs, given)
    acts = codes.talks(logs)
    chooser, facts = guided(codes, logs, seed) if method == "iql-acts" else planned(codes, acts, seed)
    voice = LoggedVoice.of(codes.agent)  # type: ignore[arg-type]
    agent = ActAgent(codes, chooser, voice, logged_acts(acts, voice.speakable))
    talks = converse_in_acts(
        agent, HelpDesk(), episodes=range(at_most(20, CONVERSATIONS)), seed=seed + 1000, lanes=250
    )
    returns = np.array([c.dialogue.undiscounted_return() for c in talks])
    row = {
        "method": method,
        "size": size,
        "seed": seed,
        "acts": len(codes.acts),
        "answers": len(codes.answers),
    }
    row |= {**facts, **summary(returns), "turns": float(np.mean([len(c.turns) for c in talks]))}
    return row | {"difference": row["promised"] - row["mean"]}


def quoted() -> list[dict[str, Any]]:
    """Rows of helpdesk.json, whose methods learn per token or per turn from 20,000 logs of bare sentences."""
    rows = json.loads((HERE / "helpdesk.json").read_text(encoding="utf-8"))["rows"]
    return [r for name in QUOTED for r in rows if r["name"] == name]


def figure(truth: dict[str, float], rows: list[dict[str, Any]]) -> Any:
    """Returns by the number of logs: every seed with its interval, and what was promised."""
    plt = pyplot()
    plot, place = plt.subplots(figsize=(9.5, 4.2), constrained_layout=True)
    for method, label in METHODS.items():
        mine = [r for r in rows if r["method"] == method]
        sizes = sorted({r["size"] for r in mine})
        if not sizes:
            continue
        of = [[r for r in mine if r["size"] == n] for n in sizes]
        means = [np.mean([r["mean"] for r in some]) for some in of]
        low = [min(r["mean"] - r["half"] for r in some) for some in of]
        high = [max(r["mean"] + r["half"] for r in some) for some in of]
        promised = [np.mean([r["promised"] for r in some]) for some in of]
        place.plot(sizes, means, "o-", color=COLOURS[method], markersize=4, label=label)
        place.fill_between(sizes, low, high, color=COLOURS[method], alpha=0.15)
        place.plot(sizes, promised, ":", color=COLOURS[method], linewidth=1, label=f"{label}: promised")
    for name, marker in (("ILQL", "s"), ("Monte-Carlo Q", "^")):
        (r,) = (r for r in quoted() if r["name"] == name)
        place.plot(
            [CONVERSATIONS * 10], [r["mean"]], marker, color="black", markersize=5, label=f"{name} per token"
        )
    place.axhline(truth["optimum"], color="black", linewidth=0.8, label="optimum")
    place.axhline(truth["behaviour"], color="black", linestyle="--", linewidth=0.8, label="logged behaviour")
    place.set_xscale("log")
    place.set_xlabel("logged conversations")
    place.set_ylabel("mean return")
    place.set_ylim(-0.8, 1.05)
    plot.legend(fontsize=7, loc="outside right upper")
    return plot


def merge(runs: Path) -> None:
    """Write everything that is there as .json, .md and .svg."""
    rows = read_truths_and_rows(runs)[1]
    if not rows:
        return
    order = list(METHODS)
    rows.sort(key=lambda r: (order.index(r["method"]), r["size"], r["seed"]))
    truth = {"optimum": optimal_value(), "behaviour": behavior_value()}
    lines = [
        f"Optimum {truth['optimum']:.4f}, logged behaviour {truth['behaviour']:.4f}, both exact.\n",
        "| method | logs | seed | states | promised | in the world | 95% interval | promised minus world |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        low, high = r["mean"] - r["half"], r["mean"] + r["half"]
        lines.append(
            f"| {METHODS[r['method']]} | {r['size']:,} | {r['seed']} | {r.get('states', '')} "
            f"| {r['promised']:.3f} | {r['mean']:.3f} | {low:.3f} to {high:.3f} "
            f"| {r['difference']:+.3f} |"
        )
    lines += [
        "\nQuoted from [helpdesk.md](helpdesk.md), 20,000 logs of bare sentences:\n",
        "| method | in the world, by seed |",
        "|---|---|",
    ]
    for r in quoted():
        cells = "; ".join(f"{x['mean']:.3f} ({x['low']:.3f} to {x['high']:.3f})" for x in r["seeds"])
        lines.append(f"| {r['name']} | {cells} |")
    lines.append("\n![Returns by the number of logs](number_of_logs.svg)")
    head = f"# Returns by the number of logs\n\n{story_of(__doc__)}\n\n"
    write_page(runs, "number_of_logs", head + "\n".join(lines))
    write_results(runs, "number_of_logs", {**truth, "rows": rows})
    write_figure(runs, "number_of_logs", figure(truth, rows))
    print("\n".join(lines))


def main() -> None:
    """Make the parts that are missing, and merge."""
    parser = options(__doc__, "number_of_logs")
    add_choice(parser, "--methods", METHODS, "methods")
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES), help="numbers of logs")
    add_seeds(parser, 0, 1, 2)
    a = parse(parser)
    for seed in [] if a.table else a.seeds:
        for size in a.sizes:
            for method in a.methods:
                make_part(a.runs / f"{method}-{size}-{seed}.json", partial(one, method, size, seed))
    merge(a.runs)


if __name__ == "__main__":
    main()
