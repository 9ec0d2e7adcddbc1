"""Does a verdict notice that a learnt model is wrong? Plans whose promise is held against live conversations.

    python experiments/wrong_models.py                       everything, resumable
    python experiments/wrong_models.py --worlds wording --seeds 0    some of it
    python experiments/wrong_models.py --asked               without the verdicts, which take longer
    python experiments/wrong_models.py --table               merge what is there: .json, .md

A desk for four parts with HelpDesk's rules and the logs of its whimsical agent; sentences are made here. A
POMDP is learnt from 2,000 conversations, and a plan is made in it (`LearntPomdp`, with 4 states, 2 starts of
EM, 60 iterations and 2 models of resampled logs). `estimate` judges the plan by 5,000 other conversations,
with logged propensities. The truth is the mean of 4,000 live conversations of the plan.

- *plain*: the model can be right. Its promise is to be within .05 of the truth.
- *two states*: the partner remembers one of four faults, and the model has two states to tell them apart.
- *wording*: each test can be asked in two ways. Asked kindly it is answered rightly in 95% of cases, else in
  60%. The logged agent asks kindly where it has asked about that part before, and the plan's words are drawn
  from all that were logged: the model knows acts only.
- *merged*: the codebook takes two parts for one, in tests and in fixes. The logged agent mostly fixes the
  part that leads, the plan either of the two.

*Missed*: sets in which the promise is further than .05 from the truth. *A fault found*: those of them in
which one of three questions finds one (`evaluation/estimates/foretelling`): whether words tell what follows
beyond all that was exchanged as acts; whether words, or what was exchanged, tell the answer beyond the model.
Their gains are in nats, and a fault from .005 on, if that is not chance. With a fault no model is believed.
*Judged* are sets in which `estimate` was asked for its verdict, which takes ten times as long. *Flagged*:
sets that missed, of which it neither says that the logs vouch nor that the model does.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
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
    write_page,
    write_results,
)

import turnwise as tw
from turnwise.envs.tasks.helpdesk.logs import behavior_probabilities
from turnwise.envs.tasks.helpdesk.rules import HORIZON, PARTS, RELIABILITY, TEST_COST
from turnwise.evaluation.estimates.foretelling.questions import DECISIONS, ask
from turnwise.evaluation.measures.playbook.plan import Plan
from turnwise.recipes.estimating.facts import told_facts
from turnwise.rollout.acts.chooser import Prefix
from turnwise.rollout.acts.logged import Remembering
from turnwise.run.rehearsal import at_most

WORLDS = ("plain", "two states", "wording", "merged")
SIZE, CHECKED, LIVE, TOLERANCE = 2000, 5000, 4000, 0.05
KIND, CURT = 0.95, 0.6
"""reliability of what is answered to either wording"""
SIDES = ("front", "front", "back", "back")
"""what the merged codebook takes a part for"""


def named(world: str, part: int) -> str:
    """A part, in the words of the codebook."""
    return SIDES[part] if world == "merged" else PARTS[part]


class Talk:
    """One conversation with a customer."""

    def __init__(self, world: str, rng: np.random.Generator) -> None:
        self.world, self.rng = world, rng
        self.fault, self.over = int(rng.integers(len(PARTS))), False
        self.net, self.last, self.turns = [0] * len(PARTS), None, 0

    def test(self, part: int, kind: bool) -> tuple[str, float]:
        """The answer and the reward."""
        reliability = RELIABILITY if self.world != "wording" else KIND if kind else CURT
        broken = (part == self.fault) == (self.rng.random() < reliability)
        self.net[part] += 1 if broken else -1
        self.last = part
        self._turn()
        return f"{named(self.world, part)} {'broken' if broken else 'fine'}", -TEST_COST

    def fix(self, part: int) -> tuple[str, float]:
        """The answer and the reward."""
        right = part == self.fault
        self._turn()
        self.over = True
        return ("solved", 1.0) if right else ("unsolved", -1.0)

    def _turn(self) -> None:
        self.turns += 1
        self.over = self.turns >= HORIZON


def logged(world: str, count: int, rng: np.random.Generator, name: str) -> list[dict[str, Any]]:
    """Conversations of the whimsical agent, with acts and their log-probabilities."""
    rows = []
    for i in range(count):
        talk, asked = Talk(world, rng), set[int]()
        messages: list[dict[str, Any]] = [{"role": "user", "content": "It fails.", "act": "complaint"}]
        while not talk.over:
            p = np.array(behavior_probabilities(talk.net, talk.last))
            acts = [f"{what} {named(world, k)}" for what in ("test", "fix") for k in range(len(PARTS))]
            chosen = int(rng.choice(len(p), p=p / p.sum()))
            part, kind = chosen % len(PARTS), chosen % len(PARTS) in asked
            answer, reward = talk.test(part, kind) if chosen < len(PARTS) else talk.fix(part)
            asked.add(part)
            chance = sum(x for x, a in zip(p, acts, strict=True) if a == acts[chosen])
            tone = ", please" if world == "wording" and kind and chosen < len(PARTS) else ""
            exact = f"{acts[chosen].split()[0]} {PARTS[part]}{tone}"
            messages.append(
                {"role": "assistant", "content": exact, "act": acts[chosen], "reward": reward}
                | {"act_logp": float(np.log(chance))}
            )
            messages.append({"role": "user", "content": answer, "act": answer})
        rows.append({"id": f"{name}{i}", "messages": messages, "terminated": True})
    return rows


def live(world: str, policy: Any, rows: list[dict[str, Any]], rng: np.random.Generator) -> float:
    """Mean return of the plan, whose words are drawn from those that were logged for its acts."""
    codes = policy.agent.codes
    said: dict[str, list[str]] = {}
    for row in rows:
        for m in row["messages"]:
            if m["role"] == "assistant":
                said.setdefault(m["act"], []).append(m["content"])
    count = at_most(20, LIVE)
    talks, chooser = [Talk(world, rng) for _ in range(count)], Remembering(policy.agent.chooser)
    acts, answers = [list[int]() for _ in talks], [list[int]() for _ in talks]
    earned = 0.0
    for _ in range(HORIZON):
        running = [i for i, t in enumerate(talks) if not t.over]
        prefixes = [Prefix.of(0, acts[i], answers[i]) for i in running]
        choices = chooser.choose(prefixes, [rng] * len(running)) if running else []
        for i, choice in zip(running, choices, strict=True):
            words = said[codes.acts[choice.act]]
            what, part, *tone = words[int(rng.integers(len(words)))].replace(",", "").split()
            k, kind = PARTS.index(part), bool(tone)
            answer, reward = talks[i].test(k, kind) if what == "test" else talks[i].fix(k)
            acts[i].append(choice.act)
            answers[i].append(codes.answers.index(answer) if answer in codes.answers else 0)
            earned += reward
    return earned / count


@dataclass(frozen=True)
class Set:
    """A plan, the conversations that it has learnt from, others, and what it is worth."""

    policy: Any
    learnt: list[dict[str, Any]]
    others: list[dict[str, Any]]
    truth: float


def made(world: str, seed: int) -> Set:
    """A plan, learnt from some conversations and tried live; and other conversations."""
    rng = np.random.default_rng((seed, WORLDS.index(world)))
    learnt, others = (logged(world, at_most(60, n), rng, name) for name, n in (("a", SIZE), ("b", CHECKED)))
    config = tw.LearntPomdp(
        states=2 if world == "two states" else 4,
        smoothing=0.3,
        starts=2,
        iterations=60,
        resamples=2,
        trials=100,
        simulations=1000,
        longest=HORIZON,
    )
    policy = tw.fit(config, learnt, seed=seed, quiet=True)
    return Set(policy, learnt, others, live(world, policy, learnt, rng))


def asked(world: str, seed: int, one: Set) -> dict[str, Any]:
    """What the plan's models promise, what it is worth, and the answers to the three questions."""
    others, plan = tw.read_logs(one.others), one.policy.agent.chooser
    told = ask(
        one.policy.agent.codes.talks(list(others)),
        list(others),
        Plan(plan.planner, plan.copies),
        most=at_most(500, DECISIONS),
        seed=0,
    )
    worth = next(w for w in one.policy.result["worth"] if w["role"] == "predicted")
    found = {"world": world, "seed": seed, "promise": worth["mean"], "truth": one.truth}
    return found | {"meanings": told_facts(told)}


def judged(world: str, seed: int, one: Set) -> dict[str, Any]:
    """What `estimate` says of the plan."""
    found = tw.estimate(one.policy, one.others, quiet=True, resamples=1000, talks=1000)
    return {"world": world, "seed": seed, "verdict": found["worth"]["sure"], "why": found["worth"]["why"]}


def make(runs: Path, world: str, seed: int, *, judging: bool) -> None:
    """Both parts of a set, or the one that is quick; what is there is not made again."""
    name = f"{world.replace(' ', '-')}-{seed}.json"
    makers = {"asked": asked} | ({"judged": judged} if judging else {})
    missing = {part: make for part, make in makers.items() if not (runs / f"{part}-{name}").exists()}
    if not missing:
        return
    one = made(world, seed)
    for part, maker in missing.items():
        make_part(runs / f"{part}-{name}", partial(maker, world, seed, one))


def merge(runs: Path) -> None:
    """The table of all parts that are there."""
    asked_of, judged_of = (
        {(r["world"], r["seed"]): r for r in map(read_part, sorted(runs.glob(f"{part}-*.json")))}
        for part in ("asked", "judged")
    )
    if not asked_of:
        print("nothing to merge")
        return
    heads = (
        "task", "sets", "promise", "truth", "missed", "a fault found, of those", "words",
        "words, beyond the model", "history, beyond the model", "sets judged", "missed", "flagged, of those",
        "vouch", "model only", "cannot tell",
    )  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for world in WORLDS:
        of = [r for (w, _), r in asked_of.items() if w == world]
        if not of:
            continue
        missed = [r for r in of if abs(r["promise"] - r["truth"]) > TOLERANCE]
        fault = sum(any(g and g["fault"] for g in r["meanings"].values()) for r in missed)
        cells = [world, len(of), *(f"{np.mean([r[k] for r in of]):.3f}" for k in ("promise", "truth"))]
        cells += [len(missed), fault]
        for name in ("words", "beyond_model", "history"):
            gains = [g["value"] for r in of if (g := r["meanings"][name]) is not None]
            cells.append(f"{np.mean(gains):.4f}" if gains else "none")
        said = [(r, judged_of[w, seed]["verdict"]) for (w, seed), r in asked_of.items()
                if w == world and (w, seed) in judged_of]  # fmt: skip
        wrong = [v for r, v in said if abs(r["promise"] - r["truth"]) > TOLERANCE]
        cells += [len(said), len(wrong), sum(v == "cannot tell" for v in wrong)]
        cells += [sum(v == word for _, v in said) for word in ("vouch", "model only", "cannot tell")]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    text = f"# Learnt models that are wrong\n\n{story_of(__doc__)}\n\n" + "\n".join(lines)
    write_page(runs, "wrong_models", text)
    rows = [r | judged_of.get(key, {"verdict": None, "why": []}) for key, r in asked_of.items()]
    write_results(runs, "wrong_models", rows)
    print(text)


def main() -> None:
    """Make the parts that are missing, and merge."""
    parser = options(__doc__, "wrong_models")
    add_choice(parser, "--worlds", WORLDS, "tasks")
    add_seeds(parser, *range(20))
    parser.add_argument("--asked", action="store_true", help="only ask the three questions: it is quicker")
    a = parse(parser)
    for seed in [] if a.table else a.seeds:
        for world in a.worlds:
            make(a.runs, world, seed, judging=not a.asked)
    merge(a.runs)


if __name__ == "__main__":
    main()
