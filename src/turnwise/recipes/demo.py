"""The main job on a built-in task: logs in, a better policy, an honest measurement and a page out.

    helpdesk logs ─┬► acts ─┬► a POMDP learnt from them ──► a plan that speaks ─┬► live customers ──► page
                   │        └► act-level IQL ───────────────────────────────────┤
                   └► BC ─────► ILQL per token ─────────────────────────────────┘

Policies of acts are judged by other logs of the same desk too, which needs nobody to talk to.
Every step is one call of `fit` or `evaluate`. Each begins as soon as the runs that it needs are there, side
by side in processes of their own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, fields, replace
from typing import Any

from turnwise.recipes.catalogue import ALGORITHMS
from turnwise.recipes.settings.demo import DemoSettings
from turnwise.recipes.side_by_side import named, result_of, workers
from turnwise.run.errors import SettingError
from turnwise.run.folder import write_config, write_json

TASK = "helpdesk"
TITLE = "HelpDesk: a better support desk from logged conversations"
AIM = (
    "Learn a better support desk from {conversations:,} logged conversations of one that acts by whim, "
    "and measure it against a live simulated customer and the exact optimum. The language of this task is "
    "templated: 82 sentences of both sides say all that matters. turnwise data make --task travel makes logs "
    "of a task that is harder to read."
)
SELECTION = (
    "Beta was picked on {validation} validation conversations of another seed; the rest is the preset's."
)


@dataclass(frozen=True)
class Method:
    """A line of the demo's table."""

    title: str
    algorithm: str
    note: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    """fields of the algorithm's `Config`"""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """keywords of `fit` besides"""
    betas: tuple[float, ...] = ()
    """strengths of the critic to choose from"""
    speaks: bool = True
    """whether it is a policy, which can be measured"""
    judged: bool = False
    """whether other logs are asked what it is worth, which needs nobody to talk to"""

    @property
    def needs(self) -> tuple[str, ...]:
        """Folders of the runs that it begins with."""
        return tuple(v for v in self.settings.values() if isinstance(v, str))


_SMALL = {"width": 64, "layers": 2}
PRESETS: dict[str, Method] = {
    "acts": Method("acts", "acts", speaks=False),
    "pomdp": Method("a plan in a learnt POMDP", "pomdp",
                    "acts found in the logs, a POMDP learnt from them, and the plan that is best in it",
                    {}, {"acts": "acts"}, judged=True),
    "act-iql": Method("act-level IQL", "act-iql", "Q and V of acts, learnt from the same logs with a GRU",
                      {}, {"acts": "acts"}, judged=True),
    "bc": Method("BC", "bc", "imitates every logged message",
                 {"partner_weight": 0.5, "epochs": 9.0}, _SMALL),
    "ilql": Method("ILQL", "ilql", "log π + β(Q − V), Q and V learnt per token by bootstrapping",
                   {"epochs": 8.0}, {"policy": "bc"}, (14.0, 28.0, 56.0)),
    "mc": Method("Monte-Carlo Q", "mc", "log π + β(Q − V), Q fitted to the returns that followed",
                 {}, {"policy": "bc"}, (14.0, 28.0, 56.0)),
    "turn-iql": Method("turn-level IQL", "turn-iql",
                       "8 utterances of BC proposed, one chosen by a critic of turns",
                       {}, {"policy": "bc"}, (7.0, 28.0)),
    "bc-success": Method("BC, success only", "bc", "imitates the conversations that ended with the right fix",
                         {"min_return": 0.0, "epochs": 1.0}, {"model": "bc"}),
    "bc-top": Method("BC, top 10%", "bc",
                     "imitates the tenth of the conversations with the highest return",
                     {"keep_top": 0.1, "epochs": 2.0}, {"model": "bc"}),
}  # fmt: skip
"""runs by their folder, in the order in which they are best begun; a setting that is text names a folder"""


def steps(a: DemoSettings) -> list[str]:
    """The demo as verbs of the command line that anybody could type, in an order in which they can run."""
    logs, seed = f"{a.out}/logs.jsonl", f"--seed {a.seed}"
    found = [
        f"turnwise data make --out {logs} --task {TASK} --conversations {a.conversations} {seed}",
        f"turnwise data check --logs {logs}",
    ]
    others, another = f"{a.out}/others.jsonl", f"--seed {a.seed + 1}"
    if a.others:
        found.append(f"turnwise data make --out {others} --task {TASK} --conversations {a.others} {another}")
    for name in _runs(a):
        p = PRESETS[name]
        flags = [f"--{k.replace('_', '-')} {v:g}" for k, v in p.config.items()]
        flags += [f"--{k} {a.out / v if isinstance(v, str) else v}" for k, v in p.settings.items()]
        flags += ["--no-estimate"] if p.speaks else []
        found.append(
            f"turnwise train {p.algorithm} --logs {logs} --out {a.out / name} {' '.join(flags)} {seed}"
        )
        if not p.speaks:
            continue
        if p.judged and a.others:
            found.append(f"turnwise evaluate --run {a.out / name} --logs {others} {seed}")
        betas = " --betas " + " ".join(f"{b:g}" for b in p.betas) if p.betas else ""
        if p.betas:
            betas += f" --validation-episodes {a.validation_episodes}"
        found.append(f"turnwise evaluate --run {a.out / name} --episodes {a.episodes}{betas} {seed}")
    return found


def demo(a: DemoSettings, say: Callable[[str], None]) -> dict[str, Any]:
    """Write logs, learn from them, measure each policy, compare: comparison.json as a value.

    `say` is told what begins. Ctrl-C stops every method at a checkpoint and raises Interrupted.
    """
    if a.out.exists() and any(a.out.iterdir()) and not a.resume:
        raise SettingError("out", str(a.out), "a new folder, or resume; this one holds other files")
    kept = ("conversations", "others", "seed", "episodes", "validation_episodes")
    decisive = {k: getattr(a, k) for k in kept}
    write_config(a.out, {"algorithm": "demo", **decisive}, resume=a.resume)
    began = time.monotonic()

    def at(text: str) -> None:
        seconds = int(time.monotonic() - began)
        say(f"[{seconds // 60}:{seconds % 60:02d}] {text}")

    with workers(a.workers) as pool:
        at(f"writing {a.conversations:,} conversations of {TASK}")
        result_of(pool.submit(_make_logs, a))
        left, done = _runs(a), set[str]()
        running: dict[Future[Any], str] = {}
        while left or running:
            for name in [x for x in left if done.issuperset(PRESETS[x].needs)]:
                left.remove(name)
                running[pool.submit(_one, name, a)] = name
                at(PRESETS[name].title)
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                found, name = result_of(future), running.pop(future)
                if name in done:
                    at(f"{PRESETS[name].title}: asked other logs")
                    continue
                done.add(name)
                at(f"{PRESETS[name].title}: {'done' if found is None else found}")
                if PRESETS[name].judged and a.others:
                    running[pool.submit(_judge, name, a)] = name
    return _compare(a)


def _command(a: DemoSettings) -> str:
    """What makes all of it again, with every setting that decides a number and is not as by default."""
    plain = {f.name: f.default for f in fields(a)}
    words = [f"turnwise demo --out {a.out} --conversations {a.conversations} --seed {a.seed}"]
    for name in ("others", "episodes", "validation_episodes", "methods"):
        value = getattr(a, name)
        if value != plain[name]:
            typed = " ".join(value) if isinstance(value, tuple) else value
            words.append(f"--{name.replace('_', '-')} {typed}")
    return " ".join(words)


def _runs(a: DemoSettings) -> list[str]:
    """The runs that were asked for, with those that they need, in the order of the presets."""
    wanted = {"bc", *a.methods}
    wanted |= {need for name in wanted for need in PRESETS[name].needs}
    return [name for name in PRESETS if name in wanted]


def _make_logs(a: DemoSettings) -> None:
    from turnwise.data.files.writing import write_jsonl
    from turnwise.recipes.tasks import TASKS

    made = {"logs": (a.conversations, a.seed), "others": (a.others, a.seed + 1)}
    for name, (conversations, seed) in made.items():
        if conversations and not (a.out / f"{name}.jsonl").exists():
            write_jsonl(a.out / f"{name}.jsonl", TASKS[TASK].rows(conversations, seed))


def _one(name: str, a: DemoSettings) -> str | None:
    """Train and measure one method, unless that is done; what it earned, for a policy."""
    from turnwise.recipes.measuring.evaluate import evaluate
    from turnwise.recipes.training.fit import fit

    named(name)
    p, folder = PRESETS[name], a.out / name
    if not (folder / "result.json").exists():
        config = ALGORITHMS[p.algorithm].config(**p.config)
        begun_from: dict[str, Any] = {
            k: str(a.out / v) if isinstance(v, str) else v for k, v in p.settings.items()
        }
        resume = a.resume and (folder / "config.yaml").exists()
        logs = str(a.out / "logs.jsonl")
        if p.speaks:  # other logs say what it is worth
            begun_from["estimate"] = False
        fit(config, logs, out=folder, seed=a.seed, resume=resume, **begun_from)
    if not p.speaks:
        return None
    if not (folder / "evaluation.json").exists():
        chosen = {"betas": p.betas, "validation_episodes": a.validation_episodes} if p.betas else {}
        evaluate(folder, TASK, episodes=a.episodes, seed=a.seed, **chosen)
    found = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    return f"mean return {found['mean']:.3f} ({found['low']:.3f} to {found['high']:.3f}, 95%)"


def _judge(name: str, a: DemoSettings) -> None:
    """Ask other logs what a policy is worth, unless that is done; its page leads with it."""
    from turnwise.evaluation.pages.report import write_report
    from turnwise.recipes.measuring.estimate import estimate

    named(name)
    if not (a.out / name / "estimate.json").exists():
        estimate(a.out / name, str(a.out / "others.jsonl"), seed=a.seed)
        write_report(a.out / name)


def _compare(a: DemoSettings) -> dict[str, Any]:
    """comparison.json of the folder."""
    from turnwise.evaluation.pages.comparison import comparison, estimate_row, row
    from turnwise.recipes.tasks import TASKS

    card = json.loads((a.out / "bc" / "card.json").read_text(encoding="utf-8"))
    references = []
    for reference in TASKS[TASK].references():
        if reference.role == "behaviour":
            # What is exact for an endless log stands in the note; the row is of the logs at hand.
            exact = f"the desk that wrote the logs; exactly {reference.mean:.4f}"
            logged = {k: card["return"][k] for k in ("mean", "low", "high")}
            reference = replace(reference, name="behaviour policy", note=exact, **logged)
            references.append({**vars(reference), "episodes": card["conversations"]})
        else:
            references.append(dict(vars(reference)))
    rows = [
        row(PRESETS[name].title, a.out / name, a.out, PRESETS[name].note,
            "baseline" if name == "bc" else "method")
        for name in _runs(a) if PRESETS[name].speaks
    ]  # fmt: skip
    judged = {
        PRESETS[name].title: json.loads((a.out / name / "estimate.json").read_text(encoding="utf-8"))
        for name in _runs(a) if PRESETS[name].judged and a.others
    }  # fmt: skip
    found = comparison(
        title=TITLE,
        aim=AIM.format(conversations=a.conversations),
        command=_command(a),
        task=TASK,
        rows=rows,
        references=references,
        selection=SELECTION.format(validation=a.validation_episodes),
        estimates=[estimate_row(name, estimate) for name, estimate in judged.items()],
    )
    write_json(a.out / "comparison.json", found)
    return found
