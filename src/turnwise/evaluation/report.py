"""The report page of a run or of a comparison of runs: one HTML file that opens from disk, on its own.

What is in the folder is shown; what is not is named, with what its absence means. Nothing on the page is
loaded from anywhere, and text from conversations is data, never markup.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markupsafe import Markup, escape

from turnwise.data.card import describe
from turnwise.evaluation.plots import (
    DARK,
    LEVELS,
    LIGHT,
    Interval,
    as_given,
    bare,
    comparison_plot,
    histogram_plot,
    is_loss,
    level,
    number,
    panel_plot,
    panels,
    value_line,
    words,
)
from turnwise.run.errors import InputError
from turnwise.run.folder import write_text

SHOWN = 12  # conversations of a run at most
_TALK_BYTES = 1_200_000  # markup of all conversations together
_PLOTS = 60  # learning-curve panels of all runs together
_RUN_FILES = (
    "config.yaml",
    "env.json",
    "metrics.jsonl",
    "card.json",
    "evaluation.json",
    "conversations.jsonl",
)
_NOT_A_NUMBER = {"NaN": None}.get  # NaN and infinities are read as missing
_MINUS = re.compile(r"(?<!\w)-(?=\d)")
_BASELINE = re.compile(r"bc$|behaviou?r(al)? cloning", re.IGNORECASE)


@dataclass(frozen=True)
class Run:
    """What a run folder holds; a file that is missing is None or empty here."""

    name: str
    folder: Path
    config: Mapping[str, Any] | None
    env: Mapping[str, Any] | None
    card: Mapping[str, Any] | None
    evaluation: Mapping[str, Any] | None
    metrics: Sequence[Mapping[str, Any]]
    conversations: Sequence[Mapping[str, Any]]


def write_report(folder: Path) -> Path:
    """Write `report.html` into a run folder or a comparison folder and return its path.

    The file is replaced whole or not at all. Raises InputError for a folder that is neither, and for a
    file that is there but cannot be read, naming file and line.
    """
    page = _page(_comparison(folder) if (folder / "comparison.json").is_file() else _single(folder))
    path = folder / "report.html"
    write_text(path, page)
    return path


def read_run(folder: Path, name: str) -> Run:
    """A run folder as it lies on disk; raises InputError for a file that cannot be read."""
    config = None
    if (path := folder / "config.yaml").is_file():
        try:
            config = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: not YAML ({' '.join(str(error).split())})") from None
        if not isinstance(config, dict):
            raise InputError(f"{path}: expected keys with values")
    env, card, evaluation = (_object(folder / f"{key}.json") for key in ("env", "card", "evaluation"))
    metrics, conversations = (_lines(folder / f"{key}.jsonl") for key in ("metrics", "conversations"))
    for i, conversation in enumerate(conversations, 1):
        messages = conversation.get("messages")
        if not messages or not all(isinstance(m, dict) and {"role", "content"} <= m.keys() for m in messages):
            where = f"{folder / 'conversations.jsonl'}: conversation {i}"
            raise InputError(f"{where}: messages: expected a list, each with role and content")
    return Run(name, folder, config, env, card, evaluation, metrics, conversations)


def _object(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"), parse_constant=_NOT_A_NUMBER)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not JSON ({error})") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: expected one JSON object")
    return found


def _lines(path: Path) -> list[dict[str, Any]]:
    """Objects of a JSONL file. A last line without its end (an interrupted run) is left out."""
    if not path.is_file():
        return []
    found = []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    for i, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line, parse_constant=_NOT_A_NUMBER)
        except json.JSONDecodeError as error:
            if i == len(lines) and not line.endswith("\n"):
                break
            raise InputError(f"{path}:{i}: not JSON ({error})") from None
        if not isinstance(value, dict):
            raise InputError(f"{path}:{i}: expected a JSON object")
        found.append(value)
    return found


def _comparison(folder: Path) -> dict[str, Any]:
    asked = _object(folder / "comparison.json") or {}
    for key in ("rows", "references"):
        for i, row in enumerate(asked.get(key, []), 1):
            if not isinstance(row, dict) or not isinstance(row.get("name"), str):
                raise InputError(
                    f"{folder / 'comparison.json'}: {key}, entry {i}: expected an object with a name"
                )
    runs = [read_run(folder / where, name) for name, where in asked.get("runs", {}).items()]
    best_first = [row for row in _table(asked)["rows"] if row.get("run")]
    titles = {row["run"]: row["name"] for row in best_first}
    order = list(titles)
    runs.sort(key=lambda run: order.index(run.name) if run.name in order else len(order))
    return _view(asked, runs, titles, folder / "comparison.json")


def _single(folder: Path) -> dict[str, Any]:
    """One run in the clothes of a comparison: its own row beside the logs' mean return and the optimum."""
    if not any((folder / name).is_file() for name in _RUN_FILES):
        raise InputError(f"{folder}: neither a run nor a comparison (no config.yaml, no comparison.json)")
    run = read_run(folder, folder.resolve().name)
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
    source = next(folder / name for name in _RUN_FILES if (folder / name).is_file())
    return _view(asked, [run], {run.name: algorithm}, source)


def _view(
    asked: Mapping[str, Any], runs: list[Run], titles: Mapping[str, str], source: Path
) -> dict[str, Any]:
    """Everything the templates show, computed; they only lay it out."""
    score = asked.get("score", "mean return")
    table = _table(asked)
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
        "title": asked.get("title") or source.parent.resolve().name,
        "asked": asked.get("asked"),
        "command": asked.get("command"),
        "facts": _facts(asked, runs, source),
        "selection": asked.get("selection"),
        "score": score,
        "confidence": f"{100 * asked.get('confidence', 0.95):g}",
        "table": table,
        "plots": _comparison_plots(table, score),
        "answer": _answer(table, score, asked.get("confidence", 0.95)),
        "cards": cards,
        "runs": shown,
        "same": _same([run.config for run in runs]),
        "environment": _same([_flat(run.env) for run in runs]),
        "colours": {"light": LIGHT, "dark": DARK, "levels": range(1, LEVELS + 1)},
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


def _facts(asked: Mapping[str, Any], runs: Sequence[Run], source: Path) -> list[tuple[str, str]]:
    seeds = sorted({str(run.config["seed"]) for run in runs if run.config and "seed" in run.config})
    written = datetime.fromtimestamp(source.stat().st_mtime, UTC).strftime("%Y-%m-%d %H:%M UTC")
    facts = [("task", asked.get("task")), ("when", written), ("seed", ", ".join(seeds))]
    return [(name, str(value)) for name, value in facts if value]


def _table(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Rows of methods and references, best first, with the share of the gap from baseline to optimum."""
    sign = 1 if asked.get("higher_is_better", True) else -1
    blank = dict.fromkeys(("mean", "low", "high", "episodes", "success", "turns", "note"))
    rows = [{**blank, **row, "reference": False} for row in asked.get("rows", [])]
    rows += [{**blank, **row, "reference": True} for row in asked.get("references", [])]
    rows.sort(key=lambda row: (row["mean"] is None, -sign * (row["mean"] or 0)))
    scored = [row for row in rows if row["mean"] is not None]
    methods = [row for row in scored if not row["reference"]]
    references = [row for row in scored if row["reference"]]
    optimum = next((r for r in references if "optim" in r["name"].lower()), None)
    behaviour = next((r for r in references if "behavi" in r["name"].lower()), None)
    baseline = next((r for r in methods if _BASELINE.match(r["name"])), None)
    floor = baseline or behaviour
    widths = [(r["high"] - r["low"]) / 2 for r in scored if r["low"] is not None and r["high"] > r["low"]]
    decimals = min(4, max(0, 1 - math.floor(math.log10(min(widths))))) if widths else 3
    for row in rows:
        row["gap"] = None
        scored_method = row["mean"] is not None and not row["reference"]
        if optimum and floor and scored_method and optimum["mean"] != floor["mean"]:
            row["gap"] = (row["mean"] - floor["mean"]) / (optimum["mean"] - floor["mean"])
        row["best"] = bool(methods) and row is methods[0]
        row["shown"] = "" if row["mean"] is None else _figure(row, decimals)
    has = {key: any(row[key] is not None for row in rows) for key in ("gap", "success", "turns", "episodes")}
    return {
        "rows": rows,
        "methods": methods,
        "references": references,
        "optimum": optimum,
        "behaviour": behaviour,
        "baseline": baseline,
        "floor": floor,
        "decimals": decimals,
        "has": has,
        "sign": sign,
    }


def _figure(row: Mapping[str, Any], decimals: int) -> str:
    """Estimates with the decimals that their intervals carry; references without one as given."""
    if row["low"] is None and row["reference"]:
        return as_given(row["mean"])
    return number(row["mean"], decimals)


def _comparison_plots(table: Mapping[str, Any], score: str) -> list[Markup]:
    if not table["methods"]:
        return []
    bars = [Interval(r["name"], r["mean"], r["low"], r["high"], r["best"]) for r in table["methods"]]
    lines = [Interval(r["name"], r["mean"], r["low"], r["high"]) for r in table["references"]]
    return [
        comparison_plot(bars, lines, score=score, decimals=table["decimals"], narrow=narrow)
        for narrow in (False, True)
    ]


def _answer(table: Mapping[str, Any], score: str, confidence: float) -> dict[str, Any] | None:
    """The result in one sentence with its figures, and what the intervals do and do not show."""
    if not table["methods"]:
        return None
    best, decimals, sign = table["methods"][0], table["decimals"], table["sign"]
    interval = ""
    if best["low"] is not None:
        ends = f"{number(best['low'], decimals)} to {number(best['high'], decimals)}"
        interval = f" ({100 * confidence:g}% interval {ends})"
    form = "<b>{}</b> leads in {}: <b>{}</b>{}"
    if score.startswith("mean"):
        form = "<b>{}</b> reaches a {} of <b>{}</b>{}"
    sentence = Markup(form).format(best["name"], score, best["shown"], interval)
    others = [r for r in (table["baseline"], table["behaviour"], table["optimum"]) if r and r is not best]
    beside = [Markup("{} for {}").format(r["shown"], _the(r)) for r in others]
    if beside:
        sentence += ", against " + Markup(" and ").join(
            filter(None, [Markup(", ").join(beside[:-1]), beside[-1]])
        )
    floor, notes = table["floor"], []
    if best["gap"] is not None and best is not floor:
        sentence += Markup(": {}% of the way from {} to the optimum").format(
            number(100 * best["gap"], 0), _the(floor)
        )
    if best is table["baseline"]:
        notes.append(f"No other method does better than {best['name']}.")
    notes += _overlaps(table)
    if best["gap"] is not None and sign * (best["mean"] - floor["mean"]) < 0:
        notes.append(f"It is worse than {_the(floor)}.")
    return {"sentence": sentence + ".", "notes": notes}


def _overlaps(table: Mapping[str, Any]) -> list[str]:
    """How the best method's interval lies to those of the next best and of what it should beat."""
    best, floor, decimals = table["methods"][0], table["floor"], table["decimals"]
    others = [r for r in [*table["methods"][1:2], floor] if r and r is not best and r["low"] is not None]
    if best["low"] is None:
        return []
    found: dict[bool, list[str]] = {False: [], True: []}
    for i, row in enumerate(others):
        if row not in others[:i]:
            overlap = best["low"] <= row["high"] and row["low"] <= best["high"]
            ends = f"{number(row['low'], decimals)} to {number(row['high'], decimals)}"
            found[overlap].append(f"{_the(row)} ({ends})")
    doubt = ", so these conversations do not settle which is better"
    says = {False: ("lies apart from", ""), True: ("overlaps", doubt)}
    return [
        f"Its interval {says[key][0]} {'those' if len(names) > 1 else 'that'} of {' and '.join(names)}"
        f"{says[key][1]}."
        for key, names in found.items()
        if names
    ]


def _the(row: Mapping[str, Any]) -> str:
    return f"the {row['name']}" if row["reference"] else row["name"]


def _run_view(run: Run, title: str, index: int, runs: int, room: int) -> dict[str, Any]:
    found = panels(run.metrics)
    most = min(9, max(2, _PLOTS // runs))
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
        "talks": _talks(run, index, room),
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


def _talks(run: Run, index: int, budget: int) -> dict[str, Any]:
    """The run's conversations, as many as the page has room for, coloured on one scale."""
    agent = str((run.config or {}).get("agent_role", "assistant"))
    shown, used = [], 0
    for conversation in run.conversations[:SHOWN]:
        blank = dict.fromkeys(("id", "ended", "source", "hidden", "return"))
        talk = {**blank, **conversation, "messages": [_scored(m, agent) for m in conversation["messages"]]}
        size = _cut(talk, budget - used)
        if shown and talk["cut"]:
            break
        shown.append(talk)
        used += size
    said = [m for talk in shown for m in talk["messages"] if m["agent"]]
    tokens = [t["advantage"] for m in said for t in m["tokens"] if t.get("advantage") is not None]
    messages = [m["advantage"] for m in said if m["advantage"] is not None]
    limit, dots = (_full_colour([abs(a) for a in values]) for values in (tokens or messages, messages))
    values = [m["v"] for m in said if m["v"] is not None]
    span = (min(values, default=0.0), max(values, default=0.0))
    decimals = 3 if limit < 0.1 else 2 if limit < 10 else 1
    for i, talk in enumerate(shown):
        _colour(talk, limit, dots, decimals, tokens=bool(tokens))
        _trace(talk, span, decimals)
        talk["key"] = f"talk-{index}-{i}"
        talk["id"] = talk["id"] or f"conversation {i + 1}"
    scale = "token" if tokens else "message" if messages else None
    return {"items": shown, "limit": f"{limit:g}", "dots": f"{dots:g}", "decimals": decimals, "scale": scale,
            "bytes": used, "left_out": len(run.conversations) - len(shown)}  # fmt: skip


def _scored(message: Mapping[str, Any], agent: str) -> dict[str, Any]:
    """A message with all fields; of one scored per token, V before the first and the sum of advantages."""
    fields = {key: message.get(key) for key in ("v", "q", "advantage", "reward")}
    tokens = [dict(t) for t in message.get("tokens") or ()]
    advantages = [t["advantage"] for t in tokens if t.get("advantage") is not None]
    if advantages and fields["advantage"] is None:
        fields["advantage"] = math.fsum(advantages)
    if tokens and fields["v"] is None:
        fields["v"] = tokens[0].get("v")
    return {**fields, "role": message["role"], "content": message["content"], "tokens": tokens,
            "agent": message["role"] == agent}  # fmt: skip


def _cut(talk: dict[str, Any], budget: int) -> int:
    """Drop the messages that do not fit into `budget` bytes of markup; returns what the rest takes."""
    left, kept = budget - 1500, 0  # what surrounds the messages: head, entry of the list, two lines of V
    for message in talk["messages"]:
        texts = [t["text"] for t in message["tokens"]] or [message["content"]]
        left -= (450 if message["agent"] else 120) + sum(105 + len(escape(text).encode()) for text in texts)
        if left < 0 and kept:
            break
        kept += 1
    talk["cut"] = len(talk["messages"]) - kept
    talk["messages"] = talk["messages"][:kept]
    return budget - max(0, left)


def _full_colour(sizes: Sequence[float]) -> float:
    """The advantage with full colour: the 95% quantile of the sizes, rounded up to a plain figure."""
    if not sizes or max(sizes) == 0:
        return 1.0
    size = sorted(sizes)[math.ceil(0.95 * len(sizes)) - 1] or max(sizes)
    power = 10.0 ** math.floor(math.log10(size))
    return next(power * m for m in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if power * m >= size * (1 - 1e-9))


def _colour(talk: Mapping[str, Any], limit: float, dots: float, decimals: int, *, tokens: bool) -> None:
    """Colour class and hover text of every token and message; full colour at `limit` and at `dots`."""
    for message in talk["messages"]:
        scored = message["advantage"] is not None
        message["shade"] = level(message["advantage"], dots) if scored else "z"
        message["whole"] = scored and not tokens
        message["figures"] = _figures(message, decimals)
        message["hover"] = " · ".join(f"{name} {value}" for name, value in message["figures"])
        for token in message["tokens"]:
            has = token.get("advantage") is not None
            token["shade"] = level(token["advantage"], limit) if has else "z"
            token["hover"] = " · ".join(f"{name} {value}" for name, value in _figures(token, decimals))


def _figures(entry: Mapping[str, Any], decimals: int) -> list[tuple[str, str]]:
    names = (("V", "v"), ("Q", "q"), ("advantage", "advantage"), ("log-prob", "logp"))
    found = [
        (name, number(entry[key], decimals, signed=key == "advantage"))
        for name, key in names
        if entry.get(key) is not None
    ]
    if (reward := entry.get("reward")) is not None:  # a figure of the log or the task: shown as it is
        found.append(("reward", f"{reward:+.4g}".replace("-", "−") if reward else "0"))
    return found


def _trace(talk: dict[str, Any], span: tuple[float, float], decimals: int) -> None:
    """V over the turns: the small line, the large one, and its largest swing in words."""
    scored = [
        (i, m) for i, m in enumerate((m for m in talk["messages"] if m["agent"]), 1) if m["v"] is not None
    ]
    values, shades = [m["v"] for _, m in scored], [m["shade"] for _, m in scored]
    talk["spark"] = value_line(values, shades, span) if values else None
    talk["line"] = value_line(values, shades, span, large=True) if values else None
    talk["swing"] = None
    for (_, before), (_, message) in pairwise(scored):
        message["moved"] = message["v"] - before["v"]
    if len(values) > 1:
        k = max(range(1, len(values)), key=lambda k: abs(values[k] - values[k - 1]))
        was, now = (number(v, decimals) for v in values[k - 1 : k + 1])
        talk["swing"] = f"V moved most from turn {scored[k - 1][0]} to turn {scored[k][0]}: {was} to {now}."
    talk["worth"] = None if talk["return"] is None else number(talk["return"], 2, signed=True)


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
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals["number"] = number
    script = environment.get_template("script.html").render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("page.html").render(**view, script=Markup(script), digest=digest)
