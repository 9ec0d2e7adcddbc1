"""The main job on a built-in task: logs in, a better policy, an honest estimate, a page; then, the truth.

    helpdesk logs ──► `improve` ──► what to take, and what it would earn ──► live customers ──► page
                         └──► every policy that it chose from ─────────────────┘

Whoever brings logs of their own has the first half. The second one, in which every policy talks with the
task's customers and stands beside the exact optimum, shows whether what was said came true.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from turnwise.recipes.improving.stages import CLONE, stages_of
from turnwise.recipes.settings.demo import DemoSettings
from turnwise.recipes.settings.improve import ImproveSettings
from turnwise.recipes.side_by_side import named, result_of, workers
from turnwise.run.errors import SettingError
from turnwise.run.folder import write_config, write_json

TASK = "helpdesk"
LOGS, BETTER = "logs.jsonl", "better"
"""what the folder holds: the logs, and the folder of `improve`"""
TITLE = "HelpDesk: a better support desk from logged conversations"
AIM = (
    "Learn a better support desk from {conversations:,} logged conversations of one that acts by whim, "
    "and measure it against a live simulated customer and the exact optimum. The language of this task is "
    "templated: 82 sentences of both sides say all that matters. turnwise data make --task travel makes logs "
    "of a task that is harder to read."
)


def steps(a: DemoSettings) -> list[str]:
    """The demo as verbs of the command line that anybody could type, in an order in which they can run."""
    logs, better, seed = a.out / LOGS, a.out / BETTER, f"--seed {a.seed}"
    preset = "" if a.preset == "acts" else f" --preset {a.preset}"
    return [
        f"turnwise data make --out {logs} --task {TASK} --conversations {a.conversations} {seed}",
        f"turnwise data check --logs {logs}",
        f"turnwise improve {logs} --out {better} {seed}{preset}",
        *(
            f"turnwise evaluate --run {folder} --episodes {a.episodes} {seed}"
            for folder in (better, *(better / x.name for x in stages_of(_improving(a)) if x.candidate))
        ),
    ]


def demo(a: DemoSettings, say: Callable[[str], None]) -> dict[str, Any]:
    """Write logs, improve on them, measure every policy, compare: comparison.json as a value.

    `say` is told what begins. Ctrl-C stops everything at a checkpoint and raises Interrupted.
    """
    from turnwise.recipes.improving.story import improve

    if a.out.exists() and any(a.out.iterdir()) and not a.resume:
        raise SettingError("out", str(a.out), "a new folder, or resume; this one holds other files")
    decisive = {k: getattr(a, k) for k in ("conversations", "seed", "episodes", "preset")}
    write_config(a.out, {"algorithm": "demo", **decisive}, resume=a.resume)
    began = time.monotonic()

    def at(text: str) -> None:
        seconds = int(time.monotonic() - began)
        say(f"[{seconds // 60}:{seconds % 60:02d}] {text}")

    at(f"writing {a.conversations:,} conversations of {TASK}")
    _make_logs(a)
    better, s = a.out / BETTER, _improving(a)
    found = improve(a.out / LOGS, better, workers=a.workers, resume=a.resume and better.exists(), **asdict(s))
    policies = {x["title"]: better / x["name"] for x in found.result["stages"] if _there(x)}
    if found.policy is not None:
        policies = with_taken(policies, better, found.result["choice"])
    at(f"{len(policies)} policies talk with live customers, {a.episodes:,} each")
    with workers(a.workers) as pool:
        for future in [pool.submit(_talk, title, folder, a) for title, folder in policies.items()]:
            at(result_of(future))
    return _compare(a, found.result, policies)


def _improving(a: DemoSettings) -> ImproveSettings:
    return ImproveSettings(preset=a.preset, seed=a.seed)


def _there(stage: dict[str, Any]) -> bool:
    return stage["candidate"] and stage["failed"] is None


def with_taken(policies: dict[str, Path], better: Path, choice: dict[str, Any]) -> dict[str, Path]:
    """What improve takes, first; one of the policies as it is does not stand there a second time."""
    title = f"what improve takes: {choice['name']}"
    whole = policies.get(choice["name"]) if choice["t"] == 1.0 else None
    others = {name: folder for name, folder in policies.items() if folder != whole}
    return {title: better if whole is None else whole, **others}


def _command(a: DemoSettings) -> str:
    """What makes all of it again, with every setting that decides a number and is not as by default."""
    plain = {f.name: f.default for f in fields(a)}
    words = [f"turnwise demo --out {a.out} --conversations {a.conversations} --seed {a.seed}"]
    words += [
        f"--{name} {getattr(a, name)}" for name in ("episodes", "preset") if getattr(a, name) != plain[name]
    ]
    return " ".join(words)


def _make_logs(a: DemoSettings) -> None:
    from turnwise.data.files.writing import write_jsonl
    from turnwise.recipes.tasks import TASKS

    if not (a.out / LOGS).exists():
        write_jsonl(a.out / LOGS, TASKS[TASK].rows(a.conversations, a.seed))


def _talk(title: str, folder: Path, a: DemoSettings) -> str:
    """Measure a policy with live customers, unless that is done; what it earned, in words."""
    from turnwise.recipes.measuring.evaluate import evaluate

    named(folder.name)
    path = folder / "evaluation.json"
    if not path.exists():
        evaluate(folder, TASK, episodes=a.episodes, seed=a.seed)
    found = json.loads(path.read_text(encoding="utf-8"))
    return f"{title}: {found['mean']:.3f} ({found['low']:.3f} to {found['high']:.3f}, 95%)"


def _compare(a: DemoSettings, improved: dict[str, Any], policies: dict[str, Path]) -> dict[str, Any]:
    """comparison.json of the folder."""
    from turnwise.evaluation.pages.comparison import comparison, row
    from turnwise.evaluation.pages.improved import said_before
    from turnwise.recipes.tasks import TASKS

    card = json.loads((a.out / BETTER / "card.json").read_text(encoding="utf-8"))
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
    about = {x["name"]: x["about"] for x in improved["stages"]}
    rows = [
        row(
            title, folder, a.out, about.get(folder.name, ""), "baseline" if folder.name == CLONE else "method"
        )
        for title, folder in policies.items()
    ]
    found = comparison(
        title=TITLE,
        aim=AIM.format(conversations=a.conversations),
        command=_command(a),
        task=TASK,
        rows=rows,
        references=references,
        said=said_before(improved, f"{BETTER}/report.html"),
    )
    write_json(a.out / "comparison.json", found)
    return found
