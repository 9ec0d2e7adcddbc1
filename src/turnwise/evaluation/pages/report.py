"""The report page of a run, a solved problem or a comparison of runs: one HTML file that opens on its own.

What is in the folder is shown; what is not is named, with what its absence means. Nothing on the page is
loaded from anywhere, and text from conversations is data, never markup.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from turnwise.data.cards.logs import describe
from turnwise.evaluation.pages.agents import agent_view, is_agent
from turnwise.evaluation.pages.curves import bare, is_loss, panels, words
from turnwise.evaluation.pages.replies import REPLIES, is_of_replies, reply_view
from turnwise.evaluation.pages.reward_models import is_of_reward, reward_view
from turnwise.evaluation.pages.run_files import RUN_FILES, Run, lines_of, object_of, read_run
from turnwise.evaluation.pages.solutions import solution_view
from turnwise.evaluation.pages.standings import answer, comparison_plots, standings
from turnwise.evaluation.pages.transcripts import talks
from turnwise.evaluation.pictures.plots import DARK, LEVELS, LIGHT, histogram_plot, number, panel_plot
from turnwise.run.errors import InputError
from turnwise.run.folder import write_text

_TALK_BYTES = 1_200_000  # markup of all conversations together
_PLOTS = 60  # learning-curve panels of all runs together
_COLOURS = {"light": LIGHT, "dark": DARK, "levels": range(1, LEVELS + 1)}
_MINUS = re.compile(r"(?<!\w)-(?=\d)")


def write_report(folder: Path) -> Path:
    """Write `report.html` into a folder of a run, a solved problem or a comparison; its path.

    The file is replaced whole or not at all. Raises InputError for a folder that is none of these, and for a
    file that is there but cannot be read, naming file and line.
    """
    if (folder / "comparison.json").is_file():
        page = _page(_comparison(folder))
    elif (folder / "solution.json").is_file():
        page = _page(_solution(folder))
    else:
        page = _page(_single(folder))
    path = folder / "report.html"
    write_text(path, page)
    return path


def _comparison(folder: Path) -> dict[str, Any]:
    asked = object_of(folder / "comparison.json") or {}
    for key in ("rows", "references"):
        for i, row in enumerate(asked.get(key, []), 1):
            if not isinstance(row, dict) or not isinstance(row.get("name"), str):
                raise InputError(
                    f"{folder / 'comparison.json'}: {key}, entry {i}: expected an object with a name"
                )
    runs = [read_run(folder / where, name) for name, where in asked.get("runs", {}).items()]
    best_first = [row for row in standings(asked)["rows"] if row.get("run")]
    titles = {row["run"]: row["name"] for row in best_first}
    order = list(titles)
    runs.sort(key=lambda run: order.index(run.name) if run.name in order else len(order))
    return _view(asked, runs, titles, folder / "comparison.json")


def _single(folder: Path) -> dict[str, Any]:
    """One run in the clothes of a comparison: its own row beside the logs' mean return and the optimum."""
    if not any((folder / name).is_file() for name in RUN_FILES):
        raise InputError(f"{folder}: neither a run nor a comparison (no config.yaml, no comparison.json)")
    run = read_run(folder, folder.resolve().name)
    if run.config is not None and is_agent(run.config):
        return _agent(run)
    if run.config is not None and (is_of_replies(run.config) or is_of_reward(run.config)):
        return _feedback(run)
    config, result, card = run.config or {}, run.evaluation, run.card
    algorithm = str(config.get("algorithm") or run.name).upper()
    asked: dict[str, Any] = {"title": f"{algorithm}: {run.name}", "rows": [], "references": []}
    if "logs" in config:
        asked["asked"] = f"Train a policy with {algorithm} on the conversations of {config['logs']}."
    asked["command"] = (run.env or {}).get("command")
    if result is not None:
        asked |= {key: result[key] for key in ("task", "score", "confidence") if key in result}
        asked["rows"] = [{**result, "name": algorithm, "run": run.name}]
        if result.get("optimum") is not None:
            asked["references"].append({"name": "exact optimum", "mean": result["optimum"]})
        if card is not None and result.get("score", "mean return") == "mean return":
            logs = {key: card["return"][key] for key in ("mean", "low", "high")}
            note = "mean return of the logged conversations"
            asked["references"].append({"name": "behaviour policy (the logs)", "note": note, **logs})
    source = next(folder / name for name in RUN_FILES if (folder / name).is_file())
    return _view(asked, [run], {run.name: algorithm}, source)


def _view(
    asked: Mapping[str, Any], runs: list[Run], titles: Mapping[str, str], source: Path
) -> dict[str, Any]:
    """Everything the templates show, computed; they only lay it out."""
    score = asked.get("score", "mean return")
    table = standings(asked)
    cards = [{"card": run.card, "names": []} for i, run in enumerate(runs)
             if run.card and run.card not in [r.card for r in runs[:i]]]  # fmt: skip
    shown, room = [], _TALK_BYTES
    for i, run in enumerate(runs):
        shown.append(_run_view(run, titles.get(run.name, run.name), i, len(runs), room // (len(runs) - i)))
        room -= shown[-1]["talks"]["bytes"]
    for entry in cards:
        entry["names"] = [titles.get(r.name, r.name) for r in runs if r.card == entry["card"]]
        entry["lines"] = _described(entry["card"], runs)
        entry["plot"] = _histogram(entry["card"], f"histogram-{cards.index(entry)}")
    return {
        "parts": ("comparison.html", "data.html", "curves.html", "conversations.html"),
        "words": "words.html",
        "title": asked.get("title") or source.parent.resolve().name,
        "asked": asked.get("asked"),
        "command": asked.get("command"),
        "facts": _facts(asked, runs, source),
        "selection": asked.get("selection"),
        "score": score,
        "confidence": f"{100 * asked.get('confidence', 0.95):g}",
        "table": table,
        "plots": comparison_plots(table, score),
        "answer": answer(table, score, asked.get("confidence", 0.95)),
        "cards": cards,
        "runs": shown,
        "same": _same([run.config for run in runs]),
        "environment": _same([_flat(run.env) for run in runs]),
        "colours": _COLOURS,
    }


def _solution(folder: Path) -> dict[str, Any]:
    """A problem that `turnwise solve` has solved."""
    path = folder / "solution.json"
    run = read_run(folder, folder.resolve().name)
    return {
        "parts": ("solution.html",),
        "words": "solution_words.html",
        **solution_view(path, object_of(path) or {}),
        "command": (run.env or {}).get("command"),
        "runs": [],
        "same": _same([run.config]),
        "environment": _same([_flat(run.env)]),
        "colours": _COLOURS,
    }


def _agent(run: Run) -> dict[str, Any]:
    """An agent that acts in an environment."""
    probe, episodes = object_of(run.folder / "probe.json"), lines_of(run.folder / "episodes.jsonl")
    return {
        "parts": ("agent.html",),
        "words": "agent_words.html",
        **agent_view(str(run.folder), run.config or {}, run.metrics, run.evaluation, probe, episodes),
        "command": (run.env or {}).get("command"),
        "runs": [],
        "same": _same([run.config]),
        "environment": _same([_flat(run.env)]),
        "colours": _COLOURS,
    }


def _feedback(run: Run) -> dict[str, Any]:
    """A reward model, or a policy that learnt from replies or preferences."""
    config = run.config or {}
    if is_of_reward(config):
        parts = ("reward.html", "curves.html")
        view = reward_view(run.card, object_of(run.folder / "quality.json"))
        asked, name = f"A reward model of {config.get('feedback')}.", "Reward model"
    else:
        parts = ("replies.html", "curves.html")
        measured, quality = (object_of(run.folder / f"{name}.json") for name in ("replies", "quality"))
        view = reply_view(config, run.metrics, measured, run.card, quality)
        source = config.get("feedback") or config.get("prompts")
        name = REPLIES[config["algorithm"]]
        asked = f"Improve {config.get('policy')} with {name} on {source}."
    shown = _run_view(run, run.name, 0, 1, _TALK_BYTES)
    return {
        "parts": parts,
        "ended": _ended(run),
        "words": "feedback_words.html",
        "title": f"{name}: {run.name}",
        "asked": asked,
        "command": (run.env or {}).get("command"),
        "facts": _facts({}, [run], run.folder / "config.yaml"),
        **view,
        "runs": [shown],
        "same": _same([run.config]),
        "environment": _same([_flat(run.env)]),
        "colours": _COLOURS,
    }


def _described(card: Mapping[str, Any], runs: Sequence[Run]) -> list[tuple[str, str]]:
    try:
        return [(name, value if name == "File" else _MINUS.sub("−", value)) for name, value in describe(card)]
    except KeyError as error:
        where = next(run.folder for run in runs if run.card == card)
        raise InputError(f"{where / 'card.json'}: no {error.args[0]!r}") from None


def _histogram(card: Mapping[str, Any], key: str) -> Markup | None:
    bins = card.get("histogram")
    return bins and histogram_plot(bins["edges"], bins["counts"], card["return"]["mean"], key)


def _ended(run: Run) -> bool:
    """Whether training came to its end, where it writes what it trained."""
    return (run.folder / "policy").is_dir() or (run.folder / "reward").is_dir()


def _facts(asked: Mapping[str, Any], runs: Sequence[Run], source: Path) -> list[tuple[str, str]]:
    seeds = sorted({str(run.config["seed"]) for run in runs if run.config and "seed" in run.config})
    written = datetime.fromtimestamp(source.stat().st_mtime, UTC).strftime("%Y-%m-%d %H:%M UTC")
    facts = [("task", asked.get("task")), ("when", written), ("seed", ", ".join(seeds))]
    if len(runs) == 1 and runs[0].config is not None and not _ended(runs[0]):
        facts.append(("state", "training has not come to its end"))
    return [(name, str(value)) for name, value in facts if value]


def _run_view(run: Run, title: str, index: int, runs: int, room: int) -> dict[str, Any]:
    found = panels(run.metrics)
    agent = str((run.config or {}).get("agent_role", "assistant"))
    most = min(12, max(2, _PLOTS // runs))
    plots = [(p.title, panel_plot(p, f"curve-{index}-{i}")) for i, p in enumerate(found[:most])]
    trained = []
    if run.metrics and "step" in run.metrics[-1]:
        trained.append(f"up to step {number(run.metrics[-1]['step'], 0)}")
    if seconds := max((row.get("seconds") or 0 for row in run.metrics), default=0):
        trained.append(
            f"{seconds // 60:.0f} min {seconds % 60:02.0f} s" if seconds >= 60 else f"{seconds:.0f} s"
        )
    return {
        "id": f"r{index}",
        "title": title,
        "folder": run.folder.name,
        "there": run.folder.is_dir(),
        "env": _flat(run.env),
        "config": run.config,
        "curves": plots,
        "more": [p.title for p in found[most:]],
        "logged": bool(run.metrics),
        "trained": trained,
        "heldout": _heldout(run.metrics),
        "talks": talks(run.conversations, agent, index, room),
    }


def _heldout(metrics: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """The last of everything measured on held-out conversations, and what kind of figure it is."""
    last = {key: value for row in metrics for key, value in row.items() if value is not None and bare(key)[1]}
    found = []
    for key, value in last.items():
        kind = "measured on logged conversations kept from training, not a return"
        if is_loss(key):
            kind = "a loss: how well the model fits logged conversations kept from training"
        elif {"Q", "V"} & set(words(key).split()):
            kind = "the critic’s own prediction there, not a return"
        found.append((words(key), number(value), kind))
    return found


def _flat(values: Mapping[str, Any] | None, prefix: str = "") -> dict[str, Any]:
    """Nested keys joined by a space."""
    found: dict[str, Any] = {}
    for key, value in (values or {}).items():
        found |= _flat(value, f"{prefix}{key} ") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def _same(maps: Sequence[Mapping[str, Any] | None]) -> dict[str, Any]:
    """What all the maps agree on, and the keys on which they differ."""
    known = [m for m in maps if m]
    keys = list(dict.fromkeys(key for m in known for key in m))
    agreed = {
        key: known[0][key] for key in keys if all(key in m and m[key] == known[0].get(key) for m in known)
    }
    return {"values": agreed, "differs": [key for key in keys if key not in agreed]}


def _page(view: Mapping[str, Any]) -> str:
    """The HTML. Its content security policy forbids every load, and every script but the page's own."""
    environment = _templates()
    script = environment.get_template("script.html").render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("page.html").render(**view, script=Markup(script), digest=digest)


@functools.cache
def _templates() -> jinja2.Environment:
    """What pages are made of, read once."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals["number"] = number
    return environment
