"""Which of several policies to take, from the logs of another: all are asked about the same conversations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from turnwise.data.dataset import Logs
from turnwise.data.disk.hashes import Hashes
from turnwise.data.files.logs import read_logs
from turnwise.evaluation.pages import compared
from turnwise.evaluation.pages.report import write_report
from turnwise.models.agents.act_critic import ActCritic
from turnwise.recipes.checkpoints import earlier_checkpoints
from turnwise.recipes.estimating.acts.kept import Kept
from turnwise.recipes.estimating.answer import Answer
from turnwise.recipes.estimating.curve import surely_best, vouched_steps
from turnwise.recipes.estimating.estimators import of_logs, row_of
from turnwise.recipes.estimating.leaks import fresh, within
from turnwise.recipes.estimating.rerated import rerated
from turnwise.recipes.estimating.resolution import per_of
from turnwise.recipes.estimating.safe import Asked, expect_free, write_safe
from turnwise.recipes.held_out import HeldOut
from turnwise.recipes.measuring.estimate import (
    Estimating,
    codebooks_of,
    expect_logs,
    expect_same_acts,
    is_plan,
    policy_of,
    world_of,
)
from turnwise.recipes.settings.measure import EstimateSettings
from turnwise.recipes.trained import ActPolicy, Codebooks, Policy
from turnwise.rollout.acts.network import NetworkChooser
from turnwise.run.errors import InputError, SettingError
from turnwise.run.files.lock import locked
from turnwise.run.files.whole import whole_files
from turnwise.run.folder import as_json, environment
from turnwise.run.progress import Progress
from turnwise.run.rehearsal import at_most

LOGGED = "the logged agent"


@dataclass(frozen=True)
class Candidate:
    """A policy, maybe with another strength of its critic than the one that it was saved with."""

    name: str
    policy: ActPolicy | Policy


def compare(
    runs: Sequence[Any] | Mapping[str, Any],
    logs: Any,
    *,
    betas: Sequence[float] = (),
    checkpoints: bool = False,
    acts: Any = None,
    model: Any = None,
    reward: Any = None,
    safe: str | Path | None = None,
    out: str | Path | None = None,
    quiet: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """Rank policies by what logged conversations say, from which none of them has learnt.

    `runs`: what `fit` or `load` returned, or run folders; or these by what they are to be called. `betas`:
    strengths of the critic at which each run that has one is taken, in place of its own. `checkpoints`: take
    the policies in a run's checkpoints too (`fit(..., checkpoints=N)` keeps more than two). `logs`, `acts`
    (of the runs that write their own words), `model` (of all that choose acts), `reward` and `settings` are
    those of `estimate`.
    `safe`: a new folder, to which the safe choice is written as a run. `out`: a folder for the page,
    compare.html, and the result, compare.json.

    `rows` are in the order of their estimates, the logged agent among them, with the gain over it (intervals
    that hold for all at once), the probability that the row is the best of all and that it is worse than the
    logged agent, and the verdict. `safe` is the choice: of all candidates and all steps towards them that the
    logs vouch for and that are better than the logged agent with certainty, all at once, the one with the
    highest estimate; the logged agent if there is none. JSON holds the result.

    Raises what `estimate` raises; InputError for no runs, and for two of one name.
    """
    s, step = EstimateSettings(**settings), expect_free(safe)
    folder = _expect_no_run(out)
    s = replace(s, resamples=at_most(200, s.resamples), talks=at_most(20, s.talks))
    candidates = _taken(runs, betas, checkpoints=checkpoints)
    given = codebooks_of(acts)
    codes = [given if isinstance(c.policy, Policy) else None for c in candidates]
    if given is not None and not any(codes):
        raise SettingError("acts", given.name, "none: policies of acts read with codebooks of their own")
    for c, own in zip(candidates, codes, strict=True):
        per_of(c.policy, own, s)
    world = None if model is None else _world(model, candidates, reward)
    read = expect_logs(logs if isinstance(logs, Logs) else read_logs(logs, quiet=quiet))
    if reward is not None:
        read = rerated(read, reward)
    held = _learnt_by(candidates, codes, world)
    rest = fresh(read, held, "these runs", s.learnt)
    if any(codes):
        rest = within(rest, held, s.replies // s.samples, s.seed)
    found, answers, kept = [], [], Kept()
    with Progress("estimating", len(candidates), quiet=quiet) as bar:
        for i, c in enumerate(candidates):
            own = c.policy if isinstance(c.policy, ActPolicy) and reward is None else None
            by = own if world is None or own is None or is_plan(own) else world
            one = Estimating(c.policy, by, read, s, quiet=True, codes=codes[i], kept=kept)
            answer = one.answer(rest)
            found.append(one.document(rest, answer))
            answers.append(answer)
            bar.at(i + 1)
    rows = _ranked(candidates, found, answers)
    choice = _safe(candidates, answers, kept=rest.kept > 0)
    if step is not None:
        asked = [Asked(c.name, c.policy, a) for c, a in zip(candidates, answers, strict=True)]
        choice |= write_safe(step, asked, choice["t"], rest)
    result = {
        "logs": read.source,
        "conversations": len(rest.logs),
        "way": answers[0].curve.way,
        "rows": rows,
        "safe": choice,
        "warnings": [*rest.notes, *dict.fromkeys(w for a in answers for w in a.warnings)],
    }
    if folder is not None:
        result["report"] = str(_write(folder, result))
    return result


def _taken(
    runs: Sequence[Any] | Mapping[str, Any], betas: Sequence[float], *, checkpoints: bool
) -> list[Candidate]:
    """All candidates of the runs. InputError for none, and for two of one name."""
    called = list(runs.items()) if isinstance(runs, Mapping) else [(_name(run), run) for run in runs]
    taken = [
        one for name, run in called for one in [(run, name), *(_earlier(run, name) if checkpoints else ())]
    ]
    candidates = [c for run, name in taken for c in candidates_of(run, name, betas)]
    _expect_names(candidates)
    return candidates


def _world(model: Any, candidates: Sequence[Candidate], reward: Any) -> ActPolicy:
    """The plan whose models are asked of all that choose acts. InputError where they speak of other acts."""
    world = world_of(model)
    if reward is not None:
        raise SettingError("model", world.name, "none beside reward: it has learnt of the logged rewards")
    for c in candidates:
        if isinstance(c.policy, ActPolicy):
            expect_same_acts(c.policy, world)
    return world


def _expect_no_run(out: str | Path | None) -> Path | None:
    """The folder for the page. SettingError for one that holds a run, or something else that has a page."""
    if out is None:
        return None
    folder = Path(out)
    others = [
        name for name in ("config.yaml", "comparison.json", "solution.json") if (folder / name).exists()
    ]
    if others or (folder.exists() and not folder.is_dir()):
        found = f"this one holds {others[0]}" if others else "a file of that name exists"
        raise SettingError("out", str(out), f"a folder for the page; {found}")
    return folder


def _write(folder: Path, result: Mapping[str, Any]) -> Path:
    """The page, and what it is made of."""
    with locked(folder):
        whole_files(
            folder, {"env.json": as_json(environment()), compared.FILE: as_json(result)}, last=compared.FILE
        )
        return write_report(folder)


def _name(run: Any) -> str:
    """What a run is called."""
    return str(run) if isinstance(run, str | Path) else getattr(run, "name", type(run).__name__)


def _earlier(run: Any, name: str) -> list[tuple[Path, str]]:
    """Checkpoints of a run and what they are called; of a run without any none."""
    folder = Path(run) if isinstance(run, str | Path) else getattr(run, "folder", None)
    if folder is None:
        return []
    return [(path, f"{name}, step {step}") for step, path in earlier_checkpoints(folder)]


def candidates_of(run: Any, name: str, betas: Sequence[float]) -> list[Candidate]:
    """A run at each of the strengths, if it has a critic with one; else as it is."""
    policy = policy_of(run)
    if any(not np.isfinite(b) or b < 0 for b in betas):
        raise SettingError("betas", " ".join(map(str, betas)), "numbers from 0")
    if isinstance(policy, ActPolicy):
        chooser = policy.agent.chooser
        if betas and isinstance(chooser, NetworkChooser) and isinstance(chooser.module, ActCritic):
            return [
                Candidate(f"{name}, beta {b:g}", replace(policy, agent=replace(policy.agent, chooser=replace(
                    chooser, acting=replace(chooser.acting, beta=float(b)))))) for b in betas
            ]  # fmt: skip
    elif betas and policy.agent.critic is not None:
        agent = policy.agent
        return [
            Candidate(f"{name}, beta {b:g}", replace(policy, agent=replace(agent, acting=replace(
                agent.acting, beta=float(b))))) for b in betas
        ]  # fmt: skip
    return [Candidate(name, policy)]


def _expect_names(candidates: Sequence[Candidate]) -> None:
    if not candidates:
        raise InputError("no runs; expected one or more to compare")
    names = [c.name for c in candidates]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{name} stands twice; expected runs that differ")


def _learnt_by(
    candidates: Sequence[Candidate], codes: Sequence[Codebooks | None], world: ActPolicy | None
) -> HeldOut:
    """What any of them, what reads its words or the model has learnt from: all are asked about the same
    talks."""
    learnt = Hashes()
    unknown: dict[str, None] = {}
    stages = [(c.name, c.policy.held) for c in candidates]
    stages += [("the codebooks", own.held) for own in codes if own is not None][:1]
    stages += [] if world is None else [("the model", world.held)]
    for name, held in stages:
        if held is None:
            unknown[name] = None
            continue
        learnt |= held.learnt
        unknown |= dict.fromkeys(f"{name}: {part}" for part in held.unknown)
    return HeldOut(0.0, None, (), learnt, tuple(unknown))


def _ranked(
    candidates: Sequence[Candidate],
    found: Sequence[dict[str, Any]],
    answers: Sequence[Answer],
) -> list[dict[str, Any]]:
    """A row for the logged agent and for each candidate, the highest estimate first."""
    logs = of_logs(answers[0].logged)
    gains = [a.curve.gains[-1] for a in answers]  # of the last step, which is the policy itself
    chosen = answers[0].sampling.choice(
        [logs.minus(logs), *gains], [0.0, *(a.curve.spread[-1] for a in answers)]
    )
    own = row_of(answers[0].sampling.intervals([logs]), 0)
    agent: dict[str, Any] = {"name": LOGGED, "logged": True, "value": own["value"], "low": own["low"]}
    agent |= {"high": own["high"], "sure": "vouch", "reached": None, "why": "", "promised": None, "steps": []}
    rows = [agent]
    for c, document, answer in zip(candidates, found, answers, strict=True):
        worth, why = answer.curve.rows[-1]["worth"], document["worth"]["why"]
        promised = next((row for row in document["estimates"] if row["name"] == "direct"), None)
        rows.append(
            {
                "name": c.name,
                "logged": False,
                **_ends(worth),
                "sure": document["worth"]["sure"],
                "reached": document["curve"]["reached"],
                "why": why[0] if why else "",
                "promised": None if promised is None else _ends(promised),
                "steps": [
                    {"t": row["t"], **_ends(row["worth"]), "vouched": row["vouched"]}
                    for row in answer.curve.rows
                ],
            }
        )
    for i, row in enumerate(rows):
        ends = (chosen.gains.values[i], chosen.gains.low[i], chosen.gains.high[i])
        row["gain"] = {
            k: float(x) if np.isfinite(x) else None
            for k, x in zip(("value", "low", "high"), ends, strict=True)
        }
        row["best"], row["worse"] = float(chosen.best[i]), float(chosen.worse[i])
    return sorted(rows, key=lambda r: -np.inf if r["value"] is None else r["value"], reverse=True)


def _safe(candidates: Sequence[Candidate], answers: Sequence[Answer], *, kept: bool) -> dict[str, Any]:
    """The best of all steps that are vouched for and better with certainty, all at once."""
    asked = [(i, k) for i, a in enumerate(answers) for k in vouched_steps(a.curve.rows)]
    curves = [answers[i].curve for i, _ in asked]
    best = surely_best(
        [c.rows[k]["worth"]["value"] for c, (_, k) in zip(curves, asked, strict=True)],
        [c.gains[k] for c, (_, k) in zip(curves, asked, strict=True)],
        [c.spread[k] for c, (_, k) in zip(curves, asked, strict=True)],
        answers[0].sampling,
    )
    if best is None or kept:
        value = float(of_logs(answers[0].logged).value)
        return {"name": LOGGED, "t": 0.0, "value": value, "low": None, "high": None, "gain": None}
    (i, k), gain = asked[best[0]], best[1]
    row = answers[i].curve.rows[k]
    return {"name": candidates[i].name, "t": row["t"], **_ends(row["worth"]), "gain": gain}


def _ends(found: Mapping[str, Any]) -> dict[str, float | None]:
    """Value and interval, without what else there is."""
    return {key: found[key] for key in ("value", "low", "high")}
