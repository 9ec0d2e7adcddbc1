"""Does a verdict notice that a learnt model is wrong? Plans whose promise is held against live conversations.

    python experiments/wrong_models.py                       everything, resumable
    python experiments/wrong_models.py --worlds wording --seeds 0    some of it
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

*Missed*: sets in which the promise is further than .05 from the truth. *Flagged*: those of them in which the
verdict neither says that the logs vouch nor that the model does. *Found*: sets in which it says that acts
have more than one meaning or that the model is wrong; else it says that the logs are too few to check it.
The last columns are what is told of what follows, in nats: by words beyond all that was exchanged as acts,
and by words and by what was exchanged beyond the model. From .005 nats on it is a fault, if it is not chance.
"""

from __future__ import annotations

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
from turnwise.rollout.acts.chooser import Prefix
from turnwise.rollout.acts.logged import Remembering
from turnwise.run.rehearsal import at_most

WORLDS = ("plain", "two states", "wording", "merged")
SIZE, CHECKED, LIVE, TOLERANCE = 2000, 5000, 4000, 0.05
KIND, CURT = 0.95, 0.6
"""reliability of what is answered to either wording"""
FOUND = ("model is wrong", "more than one meaning")
"""what a verdict says of a fault that was found"""
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


def one(world: str, seed: int) -> dict[str, Any]:
    """One plan: what its models promise, what it is worth, and what is said of it."""
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
    policy = tw.fit(config, learnt, seed=seed, quiet=True, estimate=False)
    found = tw.estimate(policy, others, quiet=True, resamples=1000, talks=1000)
    promise = next(row for row in found["estimates"] if row["name"] == "direct")
    return {
        "world": world,
        "seed": seed,
        "promise": promise["value"],
        "truth": live(world, policy, learnt, rng),
        "verdict": found["worth"]["sure"],
        "why": found["worth"]["why"],
        "meanings": {name: row["value"] for name, row in found["meanings"].items() if row is not None},
    }


def merge(runs: Path) -> None:
    """The table of all parts that are there."""
    rows = [read_part(f) for f in sorted(runs.glob("*.json"))]
    if not rows:
        print("nothing to merge")
        return
    heads = (
        "task",
        "sets",
        "promise",
        "truth",
        "missed",
        "flagged, of those",
        "model only",
        "cannot tell",
        "found",
        "words",
        "words, beyond the model",
        "history, beyond the model",
    )
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for world in WORLDS:
        of = [r for r in rows if r["world"] == world]
        if not of:
            continue
        missed = [r for r in of if abs(r["promise"] - r["truth"]) > TOLERANCE]
        flagged = sum(r["verdict"] == "cannot tell" for r in missed)
        counts = [sum(r["verdict"] == w for r in of) for w in ("model only", "cannot tell")]
        counts.append(sum(any(said in x for said in FOUND for x in r["why"]) for r in of))
        told = [np.mean([r["meanings"][k] for r in of]) for k in ("words", "beyond_model", "history")]
        means = [np.mean([r[k] for r in of]) for k in ("promise", "truth")]
        cells = [world, len(of), *(f"{x:.3f}" for x in means), len(missed), flagged, *counts]
        cells += [f"{x:.4f}" for x in told]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    text = f"# Learnt models that are wrong\n\n{story_of(__doc__)}\n\n" + "\n".join(lines)
    write_page(runs, "wrong_models", text)
    write_results(runs, "wrong_models", rows)
    print(text)


def main() -> None:
    """Make the parts that are missing, and merge."""
    parser = options(__doc__, "wrong_models")
    add_choice(parser, "--worlds", WORLDS, "tasks")
    add_seeds(parser, *range(20))
    a = parse(parser)
    for seed in [] if a.table else a.seeds:
        for world in a.worlds:
            make_part(a.runs / f"{world.replace(' ', '-')}-{seed}.json", partial(one, world, seed))
    merge(a.runs)


if __name__ == "__main__":
    main()
