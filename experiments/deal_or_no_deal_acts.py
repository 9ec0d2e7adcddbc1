"""Deal or No Deal per act: a POMDP learnt from negotiations between people, and a plan in it.

    python experiments/deal_or_no_deal_acts.py                  everything, resumable
    python experiments/deal_or_no_deal_acts.py --methods claims
    python experiments/deal_or_no_deal_acts.py --table          merge results again

Data: Lewis et al. 2017, arXiv:1706.05125 (CC BY-NC 4.0; not part of this repository). Logs, reader and cloned
partner are those of `deal_or_no_deal.py`, whose first steps are taken here if its folder lacks them.

    claims      acts by the project's own reading of claims, with the private values as what is known
                beforehand; an offer is worded anew for the items that lie on the table
    discovered  acts found in the words

Each plan negotiates with the cloned partner over test scenarios, as clone and critics do there. On the test
split it is measured how well the next answer is predicted, beside models without a hidden state, and what the
belief knows of the outcome: R² of a regression of the return on the belief, beside bags of words.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from common import (
    DATA,
    HERE,
    add_choice,
    make_part,
    options,
    parse,
    read_part,
    trained,
    write_page,
    write_results,
)
from deal_or_no_deal import GAMES, LANES, METHODS, game, prepare, scores, train

import turnwise as tw
from turnwise.data.acts.build import build_codes
from turnwise.data.acts.labelled import by_function
from turnwise.data.acts.talks import Codes, cut_turns
from turnwise.data.dialogue import Dialogue
from turnwise.envs.dialogue import Message
from turnwise.envs.tasks.negotiation.acts import agent_act, opening_act, partner_act, word_act
from turnwise.evaluation.measures.words import bags, fit_words
from turnwise.exact.learning.model import LearntModel
from turnwise.rollout.acts.agent import ActAgent
from turnwise.rollout.acts.conversations import converse_in_acts
from turnwise.rollout.acts.voice import LoggedVoice, Said
from turnwise.run.files.lock import has_ended
from turnwise.run.progress import Progress
from turnwise.run.rehearsal import at_most

WAYS = ("claims", "discovered")
TALKS = 5000
"""training conversations that a regression learns from"""
RESAMPLES = 1000


@dataclass(frozen=True)
class Worded:
    """Offers in words that fit the table, the rest in logged ones."""

    names: tuple[str, ...]
    logged: LoggedVoice

    @property
    def speakable(self) -> np.ndarray:
        """[A] bool, the acts with words."""
        return self.logged.speakable

    def speakable_in(self, talk: Sequence[Message]) -> np.ndarray:
        """The same ones in every talk."""
        return self.logged.speakable_in(talk)

    def say(
        self, acts: Sequence[int], talks: Sequence[Sequence[Message]], rngs: Sequence[np.random.Generator]
    ) -> list[Said | None]:
        """Words for an act in each of the talks."""
        own = [word_act(self.names[a], t, rng) for a, t, rng in zip(acts, talks, rngs, strict=True)]
        rest = [i for i, text in enumerate(own) if text is None]
        logged = iter(self.logged.say(*([x[i] for i in rest] for x in (acts, talks, rngs))))
        return [next(logged) if text is None else Said(text, "worded") for text in own]


def codes_of(way: str, logs: Sequence[Dialogue]) -> Codes:
    """The codebooks of the training split."""
    if way == "discovered":
        return build_codes(logs).codes
    cut = [cut_turns(d.messages, d.agent_role) for d in logs]
    return Codes(
        by_function([u for t in cut for u in t.said], agent_act, "agent_acts", other=False),
        by_function(
            [u for t in cut for u in t.heard if u is not None], partner_act, "partner_acts", other=True
        ),
        by_function([t.opening for t in cut], opening_act, "opening_acts", other=True),
    )


def learn(way: str, runs: Path) -> None:
    """The plan, unless it is there."""
    out = runs / f"acts-{way}"
    if has_ended(out):
        return
    logs = tw.read_logs(runs / "train.jsonl", quiet=True)
    settings: dict[str, Any] = {"heldout_by": "table", "estimate": False}
    trained(tw.LearntPomdp(), logs, out, acts=codes_of(way, logs), **settings)


def play(way: str, data: Path, runs: Path) -> dict[str, Any]:
    """Negotiate over the test scenarios."""
    policy = tw.load(runs / f"acts-{way}")
    agent: ActAgent = policy.agent
    if way == "claims":
        agent = replace(agent, voice=Worded(agent.codes.acts, agent.voice))
    games = at_most(4, GAMES)
    with Progress(f"{way}: test", games) as bar:
        held = converse_in_acts(
            agent, game(data, runs, "test"), episodes=range(games), seed=0, lanes=LANES, progress=bar.at
        )
    result = json.loads((runs / f"acts-{way}" / "result.json").read_text(encoding="utf-8"))
    return {
        "name": way,
        **scores(held),
        "predicted": next(w for w in result["worth"] if w["role"] == "predicted"),
        "logged": next(w for w in result["worth"] if w["role"] == "logged"),
        "bounds": result["bounds"],
        "states": result["states"],
        "acts": len(result["acts"]),
        "answers": len(result["answers"]),
        "transcripts": [[f"{m.role}: {m.content}" for m in c.dialogue.messages] for c in held[:5]],
    }


def outcome(way: str, runs: Path) -> dict[str, Any]:
    """R² of the return on the test split, by place, from the belief and from bags of words; 95% intervals."""
    policy = tw.load(runs / f"acts-{way}")
    agent: ActAgent = policy.agent
    model = LearntModel.load(runs / f"acts-{way}" / "model.npz")
    learnt, unseen = (
        [d for d in tw.read_logs(runs / f"{split}.jsonl", quiet=True) if d.terminated][: at_most(60, most)]
        for split, most in (("train", TALKS), ("test", TALKS))
    )
    mean = float(np.mean([d.undiscounted_return() for d in learnt]))
    found: dict[str, Any] = {"conversations": len(unseen)}
    y = [np.array([d.undiscounted_return() for d in part]) for part in (learnt, unseen)]
    beliefs = [_beliefs(agent.codes, model, part) for part in (learnt, unseen)]
    heard = [[list(bags(d)) for d in part] for part in (learnt, unseen)]
    for place, at in (("first", 0), ("last", -1)):
        weights = _ridge(np.stack([b[at] for b in beliefs[0]]), y[0])
        by_belief = _features(np.stack([b[at] for b in beliefs[1]])) @ weights
        fitted = fit_words([b[at][1] for b in heard[0]], y[0], np.arange(len(y[0])))
        by_words = fitted.predict([b[at][1] for b in heard[1]])
        found[place] = {"belief": _r2(by_belief, y[1], mean), "words": _r2(by_words, y[1], mean)}
    return found


def _beliefs(codes: Codes, model: LearntModel, talks: Sequence[Dialogue]) -> list[np.ndarray]:
    """For each talk [K, S + A], the belief before each of the agent's turns, and the act that it chose."""
    logs = codes.talks(talks)
    found = []
    for t in logs:
        belief, rows = model.first(np.array([t.first])), []
        for a, o in zip(t.acts, t.answers, strict=True):
            rows.append(np.append(belief[0], np.eye(len(codes.acts))[a]))
            belief, _ = model.update(belief, np.array([a]), np.array([o]))
        found.append(np.stack(rows))
    return found


def _features(x: np.ndarray) -> np.ndarray:
    """Belief and act, and the constant."""
    return np.hstack([x, np.ones((len(x), 1))])


def _ridge(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x = _features(x)
    return np.linalg.solve(x.T @ x + np.eye(x.shape[1]), x.T @ y)


def _r2(guess: np.ndarray, y: np.ndarray, mean: float) -> dict[str, float]:
    errors, baseline = (y - guess) ** 2, (y - mean) ** 2
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(y), size=(RESAMPLES, len(y)))
    spread = 1 - errors[drawn].sum(1) / baseline[drawn].sum(1)
    low, high = np.quantile(spread, [0.025, 0.975])
    return {"value": float(1 - errors.sum() / baseline.sum()), "low": float(low), "high": float(high)}


def table(runs: Path) -> None:
    """Merge what is finished into deal_or_no_deal_acts.json and .md."""
    rows = [read_part(f) for way in WAYS if (f := runs / f"acts-{way}.json").exists()]
    if not rows:
        return
    known = {way: read_part(f) for way in WAYS if (f := runs / f"acts-{way}-outcome.json").exists()}
    talks = {r["name"]: r.pop("transcripts") for r in rows}
    write_results(runs, "deal_or_no_deal_acts", {"rows": rows, "outcome": known})
    lines = [
        "| acts | states | acts, answers | mine, all | predicted | predicted minus true | partner | agreed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        p = r["predicted"]
        lines.append(
            f"| {r['name']} | {r['states']} | {r['acts']}, {r['answers']} | {_cell(r['mine'])} | {_cell(p)} "
            f"| {p['mean'] - r['mine']['mean']:+.2f} | {_cell(r['partner'])} | {r['agreed']['mean']:.0%} |"
        )
    tokens = json.loads((HERE / "deal_or_no_deal.json").read_text(encoding="utf-8"))["rows"]
    beside = "; ".join(f"{r['name']} {_cell(r['mine'])}" for r in tokens)
    lines += [
        "",
        f"{rows[0]['games']:,} games each on the test scenarios against the cloned partner, intervals of "
        f"95%. Beside it, per token ([deal_or_no_deal.md](deal_or_no_deal.md)): {beside}.",
        "",
        "| acts | R² of the outcome at the first turn, belief and act | words | at the last turn | words |",
        "|---|---|---|---|---|",
    ]
    for way, k in known.items():
        cells = [_cell({"mean": x["value"], **x}) for place in ("first", "last") for x in k[place].values()]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    for way, some in talks.items():
        lines += ["", f"## {way}: the first games", ""]
        lines += ["\n".join(f"- {line}" for line in talk) + "\n" for talk in some]
    write_page(runs, "deal_or_no_deal_acts", "\n".join(lines).rstrip())


def _cell(e: dict[str, float]) -> str:
    return f"{e['mean']:.2f} ({e['low']:.2f} to {e['high']:.2f})"


def everything(data: Path, runs: Path, ways: Sequence[str]) -> None:
    """Every step that is not done yet."""
    if not (runs / "reader.json").exists():
        prepare(data, runs)
    train(METHODS["BC"], runs)
    for way in ways:
        learn(way, runs)
        make_part(runs / f"acts-{way}.json", lambda way=way: play(way, data, runs))
        make_part(runs / f"acts-{way}-outcome.json", lambda way=way: outcome(way, runs))
        table(runs)


def main() -> None:
    """Make what is missing, and merge."""
    parser = options(__doc__, "deal_or_no_deal")
    folder = DATA / "deal_or_no_deal"
    parser.add_argument("--data", type=Path, default=folder, help="data.txt and split_of_data_rows.txt")
    add_choice(parser, "--methods", WAYS, "ways of finding acts")
    a = parse(parser)
    if not a.table:
        everything(a.data, a.runs, a.methods)
    table(a.runs)


if __name__ == "__main__":
    main()
