"""How good are partners that were learnt from HelpDesk's logs, and what is learnt from talks with them?

    python experiments/partners.py                     all for seed 0 (some 90 minutes of a core), resumable
    python experiments/partners.py --seeds 1           for another seed
    python experiments/partners.py --table             merge what is there into .json and .md

Each seed has 8,000 logs to learn from and 2,000 others to measure on, with the log's own acts. Four partners
learn from them: *fitted*, with the settings as they are (4 passes); *longer*, 12 passes; *facts*, which knows
what is broken, as the column `fault` says; *shuffled*, whose logs have the customers' messages dealt out anew
among all conversations, so that every sentence is right and no answer answers. The *act model* is that of a
plan (`pomdp`, which found 4 hidden states), worded with sentences of the log; and that of shuffled logs.

Words, ends and rewards are told of the 2,000 others (nats a message of the customer; R2 of what a turn
earned). Acts are nats an answer, at places in these conversations; *the task* is what the customer's own
rules give, exactly. *GRU* is a recurrent network of acts, which remembers all that was meant and knows no
words. *Answers told* and *talks told* are the AUC with which a classifier tells the partner's answers in
logged conversations, and whole talks of the cloned desk with it, from logged ones. Beside the latter stands
the AUC for the cloned desk with true customers, whose talks differ from logged ones by the clone alone.
Downstream: five policies in 400 conversations with the partner and in the task.

Online: PPO per act begins with a clone of acts and talks only with the partner (10,000 conversations with
the cloned customer, 20,000 with the act model of a plan, all other settings as they are). The true return is
of 2,000 true customers. *Predicted* is the mean return of the last iteration with the partner. Nothing was
chosen by the true returns. Optimum 0.5675, logged desk -0.3172, both exact.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import (
    add_choice,
    add_seeds,
    make_part,
    options,
    parse,
    read_part,
    story_of,
    trained,
    write_page,
    write_results,
)

import turnwise as tw
from turnwise.algorithms.acts.pomdp import sequences_of
from turnwise.data.dialogue import Dialogue
from turnwise.data.other_side import turned
from turnwise.envs.tasks.helpdesk.exact import Game
from turnwise.envs.tasks.helpdesk.rules import ACTS, HORIZON, PARTS
from turnwise.evaluation.measures.next_answers import nats_per_symbol
from turnwise.evaluation.measures.partners import two_sample
from turnwise.evaluation.measures.partners.telling import ratio
from turnwise.recipes.measuring import partner as measuring
from turnwise.recipes.settings.measure import PartnerMeasure
from turnwise.recipes.tasks import find_task
from turnwise.rollout.acts.simulated import siblings
from turnwise.run.folder import write_text
from turnwise.run.rehearsal import at_most, rehearsing

LOGS, OTHERS = 8000, 2000
KINDS = ("fitted", "longer", "facts", "shuffled")
ONLINE = {"act model": 20_000, "fitted": 10_000, "facts": 10_000}
"""partners to learn with, and how many talks"""
MEASURE = PartnerMeasure(talks=400, places=400, samples=24, episodes=400)
QUICK = tw.LearntPomdp(
    states=4, smoothing=0.1, starts=1, iterations=60, resamples=0, trials=60, simulations=100
)
"""of shuffled logs, in which there is no state to be found"""


def rows_of(n: int, seed: int) -> list[dict[str, Any]]:
    """HelpDesk's logs, which say what is meant."""
    return list(tw.HelpDesk(acts=True).rows(at_most(100, n), seed))


def shuffled(rows: Sequence[dict[str, Any]], seed: int) -> Iterator[dict[str, Any]]:
    """The same conversations, with all messages of customers dealt out anew."""
    places = [(i, k) for i, r in enumerate(rows) for k, m in enumerate(r["messages"]) if m["role"] == "user"]
    dealt = np.random.default_rng(seed).permutation(len(places))
    found = [{**r, "messages": [dict(m) for m in r["messages"]]} for r in rows]
    for (i, k), to in zip(places, dealt.tolist(), strict=True):
        j, other = places[to]
        for key in ("content", "act"):
            found[i]["messages"][k][key] = rows[j]["messages"][other][key]
    yield from found


def write_rows(file: Path, rows: Any) -> Path:
    """JSONL, once."""
    if not file.exists():
        write_text(file, "".join(json.dumps(row) + "\n" for row in rows))
    return file


def run(config: Any, data: Any, out: Path, seed: int, **given: Any) -> Any:
    """Fit, unless the run is there; one that was stopped goes on."""
    return tw.load(trained(config, data, out, seed=seed, quiet=True, **given))


class Seed:
    """What one seed has: logs, runs, and figures, each made when it is first asked for."""

    def __init__(self, runs: Path, seed: int) -> None:
        self.seed, self.folder = seed, runs / f"seed-{seed}"
        self.folder.mkdir(exist_ok=True)
        mine = rows_of(LOGS, seed)
        self.others = rows_of(OTHERS, 1_000_000 + seed)
        for i, row in enumerate(self.others):
            row["id"] = f"o-{i}"
        self.logs = write_rows(self.folder / "logs.jsonl", mine)
        self.shuffled = write_rows(self.folder / "shuffled.jsonl", shuffled(mine, seed))

    def measured_on(self, kind: str) -> Path:
        """What the partner learnt from, and the others, which are never shuffled: the truth is asked for."""
        rows = [json.loads(x) for x in self.source(kind).read_text(encoding="utf-8").splitlines()]
        return write_rows(self.folder / f"measured-{kind}.jsonl", [*rows, *self.others])

    def source(self, kind: str) -> Path:
        """The logs that a partner learns from."""
        return self.shuffled if kind == "shuffled" else self.logs

    def partner(self, kind: str) -> Any:
        """A partner of the kind."""
        facts = ("fault",) if kind == "facts" else ()
        out, c = self.folder / f"partner-{kind}", tw.Partner(epochs=12.0 if kind == "longer" else 4.0)
        return run(c, self.source(kind), out, self.seed, facts=facts, heldout=0.0)

    def acts(self) -> Any:
        """Codebooks."""
        return run(tw.Acts(), self.logs, self.folder / "acts", self.seed, heldout=0.0)

    def policy(self, name: str) -> Any:
        """A policy from the logs."""
        out, acts = self.folder / name, {"acts": self.folder / "acts", "estimate": False}
        self.acts()
        made = {
            "bc": lambda: run(tw.BC(epochs=4), self.logs, out, self.seed),
            "act-bc": lambda: run(tw.ActBC(), self.logs, out, self.seed, **acts),
            "act-mc-weak": lambda: run(tw.ActMC(beta=1.0), self.logs, out, self.seed, **acts),
            "act-mc": lambda: run(tw.ActMC(), self.logs, out, self.seed, **acts),
            "act-iql": lambda: run(tw.ActIQL(), self.logs, out, self.seed, **acts),
            "pomdp": lambda: run(tw.LearntPomdp(), self.logs, out, self.seed, **acts),
            "pomdp-shuffled": lambda: run(QUICK, self.shuffled, out, self.seed, **acts),
        }
        return made[name]()

    def policies(self) -> list[Any]:
        """Those whose returns are compared, the worst first."""
        return [self.policy(name) for name in ("bc", "act-mc-weak", "act-mc", "act-iql", "pomdp")]


def quality(s: Seed, kind: str) -> dict[str, Any]:
    """All figures of a partner."""
    partner = s.partner(kind)
    found = measuring.measure(
        partner,
        str(s.measured_on(kind)),
        policy=s.policy("bc"),
        acts=s.acts(),
        policies=s.policies(),
        task="helpdesk",
        settings=MEASURE,
        quiet=True,
    )
    for row in found.get("downstream", {}).get("policies", ()):
        row["policy"] = Path(row["policy"]).name
    return {"kind": "partner", "partner": kind, "seed": s.seed, **found}


def truth(s: Seed) -> dict[str, Any]:
    """Nats an answer by the task's own rules, and the test of the clone's talks with true customers."""
    others = list(tw.read_logs(s.others, quiet=True))
    per = [true_nats(d) for d in others]
    nats = ratio(np.array([sum(x) for x in per]), np.array([float(len(x)) for x in per]))
    talks, _ = measuring._held(
        s.policy("bc"), tw.HelpDesk(), at_most(40, MEASURE.talks), MEASURE, True, "clone"
    )
    codes = s.acts().codes
    test = two_sample.two_sample(
        [measuring._talk(c.dialogue, codes) for c in talks],
        [measuring._talk(d, codes) for d in others[: len(talks)]],
    )
    return {"kind": "truth", "seed": s.seed, "nats": nats, "talks_test": test}


def act_model(s: Seed, dealt: bool) -> dict[str, Any]:
    """The plan's learnt models, worded with logged sentences: what can be asked of them."""
    plan, codes = s.policy("pomdp-shuffled" if dealt else "pomdp"), s.acts().codes
    task, others = find_task(plan), list(tw.read_logs(s.others, quiet=True))
    held = sequences_of(codes.talks(others))
    (model, *_) = siblings(plan.agent.chooser.planner.model, plan.agent.chooser.copies)
    told = model.log_likelihoods(held) - np.log((model.start @ model.firsts)[held.firsts])
    down, _ = measuring.returns_of(task.live(), s.policies(), "helpdesk", MEASURE, True)
    for row in down["policies"]:
        row["policy"] = Path(row["policy"]).name
    talks, failed = measuring._held(
        s.policy("bc"), task.live(), at_most(40, MEASURE.talks), MEASURE, True, "bc"
    )
    test = two_sample.two_sample(
        [measuring._talk(c.dialogue, codes) for c in talks],
        [measuring._talk(d, codes) for d in others[: len(talks)]],
    )
    nats = nats_per_symbol(told, held.lengths, np.random.default_rng(s.seed))
    return {
        "kind": "act model",
        "partner": "act model, shuffled" if dealt else "act model",
        "seed": s.seed,
        "nats": nats,
        "downstream": down,
        "talks_test": test | {"failed": failed},
    }


def true_nats(d: Dialogue) -> list[float]:
    """-ln p of each answer of the customer, given all before it, by the rules of the task."""
    assert turned(d) is not None
    game, net, found = Game(), [0] * len(PARTS), []
    names = {str(a): a for a in ACTS}
    answers = [*[m.act for m in d.messages if m.role == "user"][1:], None]
    for k, m in enumerate(d.turns):
        act, answer = names[str(m.act)], answers[k]
        belief = game.posterior(net)
        if act.kind == "fix":
            right = belief[act.part]
            found.append(-math.log(right if answer == "solved" else 1 - right))
        elif k + 1 == HORIZON:
            found.append(0.0)  # silence, for certain
        else:
            broken = {up[act.part] - net[act.part]: p for p, up in game.answers(tuple(net), act.part)}
            step = 1 if str(answer).endswith("broken") else -1
            found.append(-math.log(broken[step]))
            net[act.part] += step
    return found


def online(s: Seed, with_whom: str) -> dict[str, Any]:
    """PPO per act against the partner alone, and what it earns with true customers."""
    clone = s.policy("act-bc")
    other = s.policy("pomdp") if with_whom == "act model" else s.partner(with_whom)
    out = s.folder / f"online-{with_whom.replace(' ', '-')}"
    talks = at_most(400, ONLINE[with_whom])
    agent = run(tw.ActPPO(talks=talks), other, out, s.seed, policy=clone)
    earned = tw.evaluate(agent, "helpdesk", episodes=2000, seed=s.seed, quiet=True)
    last = json.loads((out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    return {
        "kind": "online",
        "partner": with_whom,
        "seed": s.seed,
        "talks": talks,
        "predicted": last["episode_return"],
        "left_out": last.get("left_out", 0),
        "true": [earned.mean, earned.low, earned.high],
    }


def main() -> None:
    """Make the parts, then the tables."""
    parser = options(__doc__, "partners")
    add_seeds(parser, 0)
    add_choice(parser, "--partners", KINDS, "which partners are measured")
    add_choice(parser, "--online", ONLINE, "which partners are learnt with")
    a = parse(parser)
    for seed in () if a.table else a.seeds:
        s = Seed(a.runs, seed)
        make_part(a.runs / f"truth-{seed}.json", lambda s=s: truth(s))
        for dealt, name in ((False, "act-model"), (True, "act-model-shuffled")):
            make_part(a.runs / f"{name}-{seed}.json", lambda s=s, d=dealt: act_model(s, d))
        for kind in a.partners:
            make_part(a.runs / f"partner-{kind}-{seed}.json", lambda s=s, k=kind: quality(s, k))
        for kind in a.online:
            name = kind.replace(" ", "-")
            make_part(a.runs / f"online-{name}-{seed}.json", lambda s=s, k=kind: online(s, k))
    parts = [read_part(f) for f in sorted(a.runs.glob("*.json"))]
    write_results(a.runs, "partners", parts)
    write_page(a.runs, "partners", page(parts))


def page(parts: Sequence[Mapping[str, Any]]) -> str:
    """The tables."""
    partners = [p for p in parts if p["kind"] == "partner"]
    truths = {p["seed"]: p for p in parts if p["kind"] == "truth"}
    order = {k: i for i, k in enumerate(KINDS)}
    partners.sort(key=lambda p: (p["seed"], order[p["partner"]]))
    lines = ["# Partners from logs", "", story_of(__doc__), "", "## How good they are", "",
             "| seed | partner | words, nats | bigram | end, nats | its share | R2, turn | acts, nats "
             "| best table | GRU, ends too | answers told, AUC | talks told, AUC |",
             "|---|---|---|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for p in (p for p in partners if "failing" not in p):
        t, x = p["telling"], p["answers"]
        bigram = f"{t['message']['bigram']['mean']:.3f}"
        cells = [p["seed"], p["partner"], _cell(t["message"]["partner"]), bigram,
                 _cell(t["end"]["partner"]), f"{t['end']['share']['mean']:.3f}", _cell(t["reward"]["turn"]),
                 _cell(x["nats"]["partner"]), f"{x['nats'][x['best']]['mean']:.3f} ({x['best']})",
                 f"{x['with_memory']['value']:.3f}",
                 _auc(p.get("answers_test")), _auc(p["talks_test"])]  # fmt: skip
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    models = [p for p in parts if p["kind"] == "act model"]
    for p in models:
        nats = f"{p['nats']['value']:.3f} ({p['nats']['low']:.3f} to {p['nats']['high']:.3f}), ends too"
        lines.append(f"| {p['seed']} | {p['partner']} | | | | | | {nats} | | | | {_auc(p['talks_test'])} |")
    for seed, p in sorted(truths.items()):
        lines.append(f"| {seed} | the task | | | | | | {_cell(p['nats'])} | | | | {_auc(p['talks_test'])} |")
    lines += ["", "What gives their answers away, the first three signs:", ""]
    for p in (p for p in partners if p.get("answers_test")):
        signs = "; ".join(f"{x['sign']} ({x['held']:.0%}, logged {x['logged']:.0%})"
                          for x in p["answers_test"]["signs"][:3])  # fmt: skip
        lines.append(f"- *{p['partner']}*, seed {p['seed']}: {signs}")
    lines += ["", "## The same policies with the partner and in the task", ""]
    for p in (p for p in [*partners, *models] if "failing" not in p):
        d = p["downstream"]
        rank = d["rank"]
        lines += [f"*{p['partner']}*, seed {p['seed']}: rank correlation {rank['mean']:.2f} "
                  f"({rank['low']:.2f} to {rank['high']:.2f}), mean error {d['error']:.3f}, "
                  f"bias {d['bias']:+.3f}; {d['failed']} conversations failed.", "",
                  "| policy | with the partner | in the task | gap |", "|---|---|---|---|"]  # fmt: skip
        for row in d["policies"]:
            cells = [row["policy"], _cell(row["partner"]), _cell(row["task"]), f"{row['gap']:+.3f}"]
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    lines += [
        "## Learning with the partner alone",
        "",
        "| seed | partner | talks | left out | predicted | true return (95%) |",
        "|---|---|---|---|---|---|",
    ]
    for p in (p for p in parts if p["kind"] == "online"):
        mean, low, high = p["true"]
        cells = [p["seed"], p["partner"], f"{p['talks']:,}", f"{p['left_out']:,.0f}", f"{p['predicted']:.3f}",
                 f"{mean:.3f} ({low:.3f} to {high:.3f})"]  # fmt: skip
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def _cell(x: Mapping[str, Any]) -> str:
    return f"{x['mean']:.3f} ({x['low']:.3f} to {x['high']:.3f})"


def _auc(x: Mapping[str, Any] | None) -> str:
    if x is None:
        return "never stopped"
    return f"{x['auc']:.3f} ({x['low']:.3f} to {x['high']:.3f}), p {x['p']:.4f}"


if __name__ == "__main__":
    main()
    if rehearsing():
        print("a rehearsal: none of it means anything")
