"""Deal or No Deal, with a model of the partner: practice, rollouts at decode time, how good the models are.

    python experiments/deal_or_no_deal_online.py                    everything, resumable
    python experiments/deal_or_no_deal_online.py --policies act-ppo-models clone-ahead
    python experiments/deal_or_no_deal_online.py --table            merge results again

Data: Lewis et al. 2017, arXiv:1706.05125 (CC BY-NC 4.0; not part of this repository). Logs, reader, clone and
plan are those of `deal_or_no_deal.py` and `deal_or_no_deal_acts.py`, whose steps are taken here if their
folder lacks them. One seed. Nothing was chosen by a return: all settings are defaults, or stand below.

Three models of the other side were learnt from the training negotiations:

- *the clone*, which sees its own values and is the partner of all the tables before (`bc`);
- *another clone*, learnt with another seed from half of the training scenarios: nobody practised with it;
- *the imagined partner* (`turnwise train partner`): what the other side says next to somebody who has only
  the agent's view, so that it knows no values but the agent's; it says what was earned, too.

Policies of acts (*claims*: an offer is what it would bring) learn from the logs alone, or go on from their
clone by PPO with the plan's learnt models (20,000 conversations), with the imagined partner (10,000), or with
the clone itself over training scenarios (10,000). *Ahead*: eight proposals at a turn, each played out four
times with the imagined partner (section 5 of the paper); the best mean is said.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from common import (
    DATA,
    add_choice,
    make_part,
    options,
    parse,
    read_part,
    story_of,
    trained,
    write_page,
    write_results,
)
from deal_or_no_deal import CLONE, GAMES, LANES, METHODS, PUBLISHED, game, prepare, scores, train
from deal_or_no_deal_acts import Worded, learn

import turnwise as tw
from turnwise.algorithms.acts.pomdp import sequences_of
from turnwise.data.files.writing import write_jsonl
from turnwise.data.other_side import TurnedLogs
from turnwise.data.rows import token_rows
from turnwise.envs.dialogue import DialogueTask
from turnwise.evaluation.measures.conversations import hold_conversations
from turnwise.evaluation.measures.intervals import mean_interval
from turnwise.evaluation.measures.partners.answers import measure_answers, with_memory
from turnwise.evaluation.measures.partners.telling import ratio
from turnwise.evaluation.measures.partners.two_sample import two_sample
from turnwise.evaluation.measures.wording import measure_wording
from turnwise.models.agents.act_critic import ActClone
from turnwise.models.lm.parts import context_of
from turnwise.models.lm.policies import LmPolicy
from turnwise.recipes.measuring import partner as measuring
from turnwise.recipes.settings.measure import PartnerMeasure
from turnwise.recipes.trained import Codebooks
from turnwise.rollout.acts.agent import ActAgent
from turnwise.rollout.acts.conversations import converse_in_acts
from turnwise.rollout.acts.network import NetworkChooser
from turnwise.rollout.acts.partners import ModelPartner
from turnwise.rollout.acts.plan import PlanChooser
from turnwise.rollout.acts.simulated import siblings
from turnwise.rollout.conversations import Conversation
from turnwise.rollout.load import load_agent
from turnwise.rollout.partners.played_out import Ahead, PlaysOut
from turnwise.rollout.partners.speakers import SpeakingActs, SpeakingModel
from turnwise.rollout.spoken import converse_in_messages
from turnwise.run.progress import Progress
from turnwise.run.rehearsal import at_most

OTHER = "bc-other"
TALKS = {"models": 20_000, "imagined": 10_000, "clone": 10_000}
"""conversations of practice, by whom it is with"""
AHEAD, GAMES_AHEAD = Ahead(proposals=8, playouts=4), 100
"""how far policies look ahead, and in how many games: they take longer"""
MEASURE = PartnerMeasure(talks=300, places=300, samples=16, counted=3000)
MEASURES = ("imagined-words", "imagined-acts", "acts-remembered", "clone-told")
TESTS = {"answers_test": "an answer", "talks_test": "a whole talk with the clone of words"}
SHOWN = ("act-ppo-clone", "clone-ahead")
"""policies whose first games stand on the page"""


@dataclass(frozen=True)
class Row:
    """A policy of the table."""

    name: str
    folder: str
    config: Any = None
    """what makes it, if it is learnt here from logs"""
    practice: str | None = None
    """whom it practised with: models, imagined, clone"""
    ahead: bool = False
    tasks: tuple[str, ...] = ("bc", OTHER)


ROWS = {
    "clone": Row("clone of words", "bc"),
    "act-bc": Row("clone of acts", "act-bc", tw.ActBC()),
    "act-mc": Row("Monte-Carlo Q per act", "act-mc", tw.ActMC()),
    "act-iql": Row("IQL per act", "act-iql", tw.ActIQL()),
    "plan": Row("plan", "acts-claims"),
    "act-ppo-models": Row("PPO per act, the plan's models", "act-ppo-models", practice="models"),
    "act-ppo-imagined": Row("PPO per act, the imagined partner", "act-ppo-imagined", practice="imagined"),
    "act-ppo-clone": Row("PPO per act, the clone", "act-ppo-clone", practice="clone"),
    "clone-ahead": Row("clone of words, ahead", "bc", ahead=True),
    "act-bc-ahead": Row("clone of acts, ahead", "act-bc", ahead=True),
    "act-ppo-clone-ahead": Row("PPO per act, the clone, ahead", "act-ppo-clone", ahead=True),
}


def opened(run: Path) -> Any:
    """What a run came to: a policy, a partner, a plan."""
    return tw.load(run)


def fit(config: Any, data: Any, out: Path, **settings: Any) -> Any:
    """What a run came to; the run is made, or gone on with, if need be."""
    return opened(trained(config, data, out, **settings))


def models(data: Path, runs: Path) -> None:
    """Everything that is learnt from logs and is not a policy of this table."""
    if not (runs / "reader.json").exists():
        prepare(data, runs)
    train(METHODS["BC"], runs)
    fit(tw.Partner(), str(runs / "train.jsonl"), runs / "partner", heldout=0.0, **CLONE)
    another_clone(runs)
    learn("claims", runs)


def another_clone(runs: Path) -> None:
    """Another seed, and half of the scenarios."""
    half = runs / "train_half.jsonl"
    if not half.exists():
        rows = [json.loads(x) for x in (runs / "train.jsonl").read_text(encoding="utf-8").splitlines()]
        tables = sorted({row["table"] for row in rows})
        mine = set(np.random.default_rng(1).permutation(tables)[: len(tables) // 2].tolist())
        write_jsonl(half, (row for row in rows if row["table"] in mine))
    settings = {"heldout": 0.02, "heldout_by": "table", "estimate": False}
    fit(METHODS["BC"].config, str(half), runs / OTHER, seed=1, **settings, **CLONE)


def acts_of(runs: Path) -> Codebooks:
    """The codebooks of the plan."""
    return Codebooks(opened(runs / "acts-claims").agent.codes)


def worded(policy: Any) -> Any:
    """The policy, whose offers fit the table."""
    agent = policy.agent
    return replace(policy, agent=replace(agent, voice=Worded(agent.codes.acts, agent.voice)))


def learnt(key: str, data: Path, runs: Path) -> Any:
    """The policy of a row."""
    row = ROWS[key]
    if row.folder in ("bc", "acts-claims"):
        found = opened(runs / row.folder)
        return found if row.folder == "bc" else worded(found)
    made = ROWS[row.folder]
    if made.practice is None:
        logs = tw.read_logs(runs / "train.jsonl", quiet=True)
        settings = {"heldout_by": "table", "estimate": False}
        return worded(fit(made.config, logs, runs / row.folder, acts=acts_of(runs), **settings))
    config = tw.ActPPO(talks=at_most(200, TALKS[made.practice]))
    other = {
        "models": lambda: opened(runs / "acts-claims"),
        "imagined": lambda: opened(runs / "partner"),
        "clone": lambda: game(data, runs, "train"),
    }[made.practice]()
    return worded(fit(config, other, runs / row.folder, policy=learnt("act-bc", data, runs)))


def held(policy: Any, row: Row, task: DialogueTask, runs: Path, seed: int) -> list[Conversation]:
    """Games of a policy."""
    games = at_most(4, GAMES_AHEAD if row.ahead else GAMES)
    how: dict[str, Any] = {"seed": seed, "lanes": LANES}
    acts = isinstance(policy.agent, ActAgent)
    with Progress(row.name, games) as bar:
        if row.ahead:
            speaker = SpeakingActs(policy.agent) if acts else SpeakingModel(policy.agent)
            looking = PlaysOut(speaker, opened(runs / "partner").live(), AHEAD)
            return converse_in_messages(looking, task, episodes=range(games), progress=bar.at, **how)
        if acts:
            return converse_in_acts(policy.agent, task, episodes=range(games), progress=bar.at, **how)
        return hold_conversations(policy.agent, task, episodes=games, progress=bar.at, **how)


def play(key: str, partner: str, data: Path, runs: Path) -> dict[str, Any]:
    """Negotiate over the test scenarios with one of the clones."""
    row, policy = ROWS[key], learnt(key, data, runs)
    task = game(data, runs, "test", partner)
    began = time.process_time()
    games = held(policy, row, task, runs, 0)
    seconds = time.process_time() - began
    talks = [[f"{m.role}: {m.content}" for m in c.dialogue.messages] for c in games[:5]]
    return {
        "key": key,
        "with": partner,
        **scores(games),
        "failed": sum(c.failed for c in games),
        "cpu_seconds": seconds / len(games),
        "transcripts": talks,
    }


def predicted(key: str, data: Path, runs: Path) -> dict[str, float]:
    """What a policy earns with whom it practised with, in talks that it has not learnt from."""
    row, policy = ROWS[key], learnt(key, data, runs)
    if row.practice == "models":
        plan, chooser = opened(runs / "acts-claims").agent.chooser, policy.agent.chooser
        assert isinstance(plan, PlanChooser) and isinstance(chooser, NetworkChooser)
        assert isinstance(chooser.module, ActClone)
        known = ModelPartner(tuple(siblings(plan.planner.model, plan.copies)), chooser)
        episodes, _ = known.talks(chooser.module, at_most(20, GAMES), (1,))
        returns = [float(e.rewards.sum()) for e in episodes]
    else:
        task = opened(runs / "partner").live() if row.practice == "imagined" else game(data, runs, "train")
        games = held(policy, row, task, runs, 1)
        returns = [c.dialogue.undiscounted_return() for c in games if not c.failed]
    e = mean_interval(np.array(returns), rng=np.random.default_rng(0))
    return {"mean": e.mean, "low": e.low, "high": e.high, "n": e.n}


def imagined_in_words(runs: Path) -> dict[str, Any]:
    """What the imagined partner knows of people's next words, and by what it is told from them."""
    measured = runs / "measured.jsonl"
    parts = [
        (runs / f"{split}.jsonl").read_text(encoding="utf-8").splitlines() for split in ("train", "test")
    ]
    # Side by side, so that a rehearsal, which reads the first few, has some of either.
    pairs = itertools.zip_longest(parts[0][: MEASURE.counted], parts[1])
    write_jsonl(measured, (json.loads(x) for pair in pairs for x in pair if x), overwrite=True)
    return measuring.measure(
        opened(runs / "partner"), str(measured), policy=opened(runs / "bc"), settings=MEASURE
    )


def imagined_in_acts(runs: Path) -> dict[str, Any]:
    """Nats of what it means next, beside tables of acts."""
    codes, fitted = acts_of(runs).codes, opened(runs / "partner").fitted
    learnt, unseen = (tw.read_logs(runs / f"{split}.jsonl", quiet=True) for split in ("train", "test"))
    counted = codes.talks(learnt[: MEASURE.counted])
    places, samples = at_most(20, MEASURE.places), at_most(4, MEASURE.samples)
    return measure_answers(fitted, codes, counted, TurnedLogs(unseen), places=places, samples=samples)


def remembered(runs: Path) -> dict[str, float]:
    """Nats an act of a network that remembers all that was meant, ends included."""
    codes = acts_of(runs).codes
    learnt, unseen = (tw.read_logs(runs / f"{split}.jsonl", quiet=True) for split in ("train", "test"))
    counted, others = codes.talks(learnt[: MEASURE.counted]), codes.talks(unseen)
    return with_memory(sequences_of(counted), sequences_of(others), 0, True)


def clone_told(data: Path, runs: Path) -> dict[str, Any]:
    """The same of the clone: nats a token of people's words, and its talks with itself beside theirs."""
    learnt, unseen = (tw.read_logs(runs / f"{split}.jsonl", quiet=True) for split in ("train", "test"))
    agent, codes = load_agent(runs / "bc"), acts_of(runs).codes
    rows = [
        token_rows(part, agent.chat, context_of(agent.lm)) for part in (learnt[: MEASURE.counted], unseen)
    ]
    told = measure_wording(LmPolicy(agent.lm), *rows)
    # The clone on both sides: what differs from people is its own.
    n, task = at_most(20, MEASURE.talks), game(data, runs, "test")
    games = hold_conversations(agent, task, episodes=n, seed=2, lanes=LANES)
    logged = [unseen[i * len(unseen) // n] for i in range(n)]
    test = two_sample(
        [measuring._talk(c.dialogue, codes) for c in games], [measuring._talk(d, codes) for d in logged]
    )
    return {"wording": told, "talks_test": test}


def logged(runs: Path) -> dict[str, Any]:
    """What people earned on the test split, with its interval over tables; disconnected ones are left out."""
    logs = [d for d in tw.read_logs(runs / "test.jsonl", quiet=True) if d.terminated]
    _, at = np.unique([str(d.metadata["table"]) for d in logs], return_inverse=True)
    earned = np.bincount(at, weights=[d.undiscounted_return() for d in logs])
    return ratio(earned, np.bincount(at).astype(float)) | {"n": len(logs)}


def everything(data: Path, runs: Path, keys: Sequence[str]) -> None:
    """Every step that is not done yet."""
    models(data, runs)

    def make(name: str, of: Callable[[], Any]) -> None:
        make_part(runs / f"online-{name}.json", of)

    make("logged", lambda: logged(runs))
    for key in keys:
        for partner in ROWS[key].tasks:
            make(f"{key}-{partner}", lambda k=key, p=partner: play(k, p, data, runs))
        if ROWS[key].practice is not None:
            make(f"{key}-predicted", lambda k=key: predicted(k, data, runs))
        table(runs)
    make("imagined-words", lambda: imagined_in_words(runs))
    make("imagined-acts", lambda: imagined_in_acts(runs))
    make("acts-remembered", lambda: remembered(runs))
    make("clone-told", lambda: clone_told(data, runs))
    table(runs)


def table(runs: Path) -> None:
    """Merge what is finished into deal_or_no_deal_online.json and .md."""

    def part(name: str) -> Any:
        file = runs / f"online-{name}.json"
        return read_part(file) if file.exists() else None

    played = {key: {p: x for p in row.tasks if (x := part(f"{key}-{p}"))} for key, row in ROWS.items()}
    played = {key: found for key, found in played.items() if found}
    people = part("logged")
    measures = {name: x for name in MEASURES if (x := part(name))}
    if not played or people is None:
        return
    promises = {key: x for key in played if (x := part(f"{key}-predicted"))}
    talks = {key: played[key]["bc"]["transcripts"] for key in SHOWN if "bc" in played.get(key, ())}
    for found in played.values():
        for x in found.values():
            x.pop("transcripts")
    result = {"people": people, "rows": played, "predicted": promises, "quality": measures}
    write_results(runs, "deal_or_no_deal_online", result)
    lines = ["# Deal or No Deal, with a model of the partner", "", story_of(__doc__), "", *_rows(result)]
    if measures:
        lines += ["", "## How good the models are", "", *_quality(measures)]
    for key, some in talks.items():
        lines += ["", f"## {ROWS[key].name}: the first games with the clone", ""]
        lines += ["\n".join(f"- {line}" for line in talk) + "\n" for talk in some]
    write_page(runs, "deal_or_no_deal_online", "\n".join(lines).rstrip())


def _rows(result: dict[str, Any]) -> list[str]:
    people = result["people"]
    lines = [
        "| policy | with the clone | its partner | agreed | with another clone | predicted | CPU-s a game |",
        "|---|---|---|---|---|---|---|",
        f"| people with people, {people['n']:,} logged sides | {_cell(people)} | | | | | |",
    ]
    for key, found in result["rows"].items():
        mine, other = found.get("bc"), found.get(OTHER)
        cells = [
            _cell(mine["mine"]) if mine else "",
            _cell(mine["partner"]) if mine else "",
            f"{mine['agreed']['mean']:.0%}" if mine and mine["agreed"] else "",
            _cell(other["mine"]) if other else "",
            _cell(result["predicted"].get(key)),
            f"{mine['cpu_seconds']:.3f}" if mine else "",
        ]
        lines.append(f"| {ROWS[key].name} | {' | '.join(cells)} |")
    for name, mine, theirs in PUBLISHED:
        lines.append(f"| published, another partner model: {name} | {mine} | {theirs} | | | | |")
    lines += [
        "",
        f"Points of the agent over test scenarios, no agreement being 0: {GAMES:,} games, {GAMES_AHEAD} of "
        "those that look ahead; intervals of 95% over games, that of people over tables. *Predicted*: what "
        "it earns with whom it practised with, in games that it has not learnt from. PPO with the clone is "
        "judged by the partner that it practised with: the column *with another clone* is its test. CPU-s "
        "are of one thread, the partner's own words included. Every return here is against a model of a "
        "person and not a person.",
    ]
    if missing := [row.name for key, row in ROWS.items() if key not in result["rows"]]:
        lines += ["", f"Not run yet: {'; '.join(missing)}."]
    return lines


def _quality(measures: dict[str, Any]) -> list[str]:
    lines = []
    if (words := measures.get("imagined-words")) is not None:
        lines += [f"- the imagined partner: {x}" for x in words["lines"]]
        for key, what in TESTS.items():
            test = words.get(key)
            if test is not None and test["p"] < 0.05:  # else nothing gives it away
                lines.append(f"- the imagined partner, {what} shows by: {_signs(test)}")
    if (acts := measures.get("imagined-acts")) is not None:
        nats, best = acts["nats"], acts["best"]
        lines.append(
            f"- the imagined partner: {_cell(nats['partner'], 3)} nats an act at {acts['places']} places, "
            f"from {acts['samples']} answers at each; the best table of acts ({best}) {_cell(nats[best], 3)}"
        )
    if (memory := measures.get("acts-remembered")) is not None:
        lines.append(
            f"- a recurrent network of acts, ends included: {memory['value']:.3f} nats an act "
            f"({memory['low']:.3f} to {memory['high']:.3f})"
        )
    if (clone := measures.get("clone-told")) is not None:
        told, test = clone["wording"], clone["talks_test"]
        nats = {name: _cell(told["nats"][name], 3) for name in ("clone", "bigram", "unigram")}
        lines.append(
            f"- the clone, words: {nats['clone']} nats a token of {told['conversations']:,} test sides; a "
            f"bigram table {nats['bigram']}, frequencies {nats['unigram']}"
        )
        lines.append(
            f"- the clone with itself, whole talks beside logged ones: AUC {test['auc']:.3f} "
            f"({test['low']:.3f} to {test['high']:.3f}; a coin has .5), p {test['p']:.4f}; it shows by: "
            f"{_signs(test)}"
        )
    return lines


def _signs(test: dict[str, Any]) -> str:
    return "; ".join(f"{x['sign']} ({x['held']:.0%}, logged {x['logged']:.0%})" for x in test["signs"])


def _cell(e: dict[str, Any] | None, digits: int = 2) -> str:
    return "" if e is None else f"{e['mean']:.{digits}f} ({e['low']:.{digits}f} to {e['high']:.{digits}f})"


def main() -> None:
    """Make what is missing, and merge."""
    parser = options(__doc__, "deal_or_no_deal")
    folder = DATA / "deal_or_no_deal"
    parser.add_argument("--data", type=Path, default=folder, help="data.txt and split_of_data_rows.txt")
    add_choice(parser, "--policies", ROWS, "rows of the table")
    a = parse(parser)
    if not a.table:
        everything(a.data, a.runs, a.policies)
    table(a.runs)


if __name__ == "__main__":
    main()
