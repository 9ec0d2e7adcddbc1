"""The page of policies that learnt from logged conversations: one run, or a comparison of several."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from turnwise.data.cards.logs import describe
from turnwise.evaluation.pages.comparison import expect_rows
from turnwise.evaluation.pages.conversations import conversations_view
from turnwise.evaluation.pages.critics import critic_view, scale_of, typeset
from turnwise.evaluation.pages.layout import Page
from turnwise.evaluation.pages.provenance import facts_of_runs, flat
from turnwise.evaluation.pages.run_files import RUN_FILES, RunFiles, read_object, read_run
from turnwise.evaluation.pages.standings import answer, comparison_plots, standings
from turnwise.evaluation.pages.training import training_view
from turnwise.evaluation.pictures.conversations import histogram_plot
from turnwise.evaluation.pictures.style import number
from turnwise.run.errors import InputError

_BYTES = 1_200_000  # markup of all conversations together, so that a page of many runs still opens at once
NOT_COMPARED = "What the logs earned is not compared with this: they do not say that they come from"


def comparison_page(folder: Path) -> Page:
    """The page of `comparison.json` and the run folders that it names."""
    path = folder / "comparison.json"
    compared = read_object(path) or {}
    expect_rows(path, compared)
    runs = [read_run(folder / where, name) for name, where in compared.get("runs", {}).items()]
    best_first = [row for row in standings(compared)["rows"] if row.get("run")]
    titles = {row["run"]: row["name"] for row in best_first}
    order = list(titles)
    compared = {**compared, "pages": [x for x in order if (folder / x / "report.html").is_file()]}
    # As in the table. Runs without a row, which nobody evaluated, come last.
    runs.sort(key=lambda run: order.index(run.name) if run.name in order else len(order))
    return _laid_out(compared, runs, titles, path)


def logs_page(run: RunFiles) -> Page:
    """One run, shown as a comparison: its own row beside the logs' mean return and its references."""
    config, result, card = run.config or {}, run.evaluation, run.card
    title = run.algorithm.title
    compared: dict[str, Any] = {"title": f"{title}: {run.name}", "rows": [], "references": []}
    if "logs" in config:
        compared["aim"] = f"Train a policy with {title} on the conversations of {config['logs']}."
    if result is not None:
        compared |= {key: result[key] for key in ("task", "score", "confidence") if key in result}
        # The role is the method's whatever the algorithm is: a lone run has nothing to be a baseline for.
        compared["rows"] = [{**result, "name": title, "run": run.name, "role": "method"}]
        compared["references"] = list(result.get("references", []))
        expect_rows(run.folder / "evaluation.json", compared)
        # The card knows the mean return of the logs. Beside another score, or in another task than the one
        # that they come from, it would be no reference.
        if not result.get("same_task"):
            compared["references"] = [r for r in compared["references"] if r.get("role") != "behaviour"]
            compared["apart"] = f"{NOT_COMPARED} {result.get('task', 'the task of the evaluation')}."
        elif card is not None and card["return"] and result.get("score", "mean return") == "mean return":
            compared["references"] = _with_logs(compared["references"], card)
    source = next(run.folder / name for name in RUN_FILES if (run.folder / name).is_file())
    return _laid_out(compared, [run], {run.name: title}, source)


def _with_logs(references: Sequence[Mapping[str, Any]], card: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The references, with the policy that wrote the logs by the mean return of its conversations.

    A task may know what its own logs earn. The run may have learnt from others, so the task's figure goes
    in the note.
    """
    figures = {key: card["return"][key] for key in ("mean", "low", "high")}
    note = "wrote the logs: mean return of the logged conversations"
    for known in (r for r in references if r.get("role") == "behaviour"):
        note += f"; known of the task: {known['name']} {number(known['mean'], 4)}"
    logs = {"name": "behaviour policy", "role": "behaviour", "note": note, **figures}
    return [*(r for r in references if r.get("role") != "behaviour"), logs]


def _laid_out(
    compared: Mapping[str, Any], runs: list[RunFiles], titles: Mapping[str, str], source: Path
) -> Page:
    """A comparison and its runs: everything that the templates show, computed here."""
    score = compared.get("score", "mean return")
    confidence = compared.get("confidence", 0.95)
    table = standings(compared)
    found = answer(table, score, confidence)
    if found is not None and "apart" in compared:
        found["notes"].append(compared["apart"])
    shown, bytes_left = [], _BYTES
    for i, run in enumerate(runs):
        # An equal share of the rest: what a run with short conversations leaves goes to the later ones.
        budget = bytes_left // (len(runs) - i)
        shown.append(_run_view(run, titles.get(run.name, run.name), i, len(runs), budget))
        bytes_left -= shown[-1]["talks"]["bytes"]
    values = {
        "title": compared.get("title") or source.parent.resolve().name,
        "aim": compared.get("aim"),
        "facts": facts_of_runs(runs, source, compared.get("task")),
        "said": compared.get("said"),
        "pages": compared.get("pages", ()),
        "score": score,
        "confidence": f"{100 * confidence:g}",
        "table": table,
        "plots": comparison_plots(table, score),
        "answer": found,
        "cards": _cards(runs, titles),
        "runs": shown,
    }
    parts = (
        "logs/result.html",
        "logs/wording.html",
        "logs/data.html",
        "logs/critics.html",
        "curves.html",
        "logs/conversations.html",
    )
    return Page(parts, "logs/words.html", values, runs, compared.get("command"))


def _run_view(run: RunFiles, title: str, index: int, runs: int, budget: int) -> dict[str, Any]:
    """Run number `index` of `runs`: its curves, and conversations of at most `budget` bytes of markup."""
    agent = str((run.config or {}).get("agent_role", "assistant"))
    return {
        "id": f"r{index}",
        "title": title,
        "folder": run.folder.name,
        "there": run.folder.is_dir(),
        "env": flat(run.env),
        "config": run.config,
        "wording": _wording(run.wording),
        **training_view(run, runs, index),
        "critic": critic_view(run),
        "talks": conversations_view(run.conversations, agent, index, budget, scale_of(run)),
    }


_PREDICTORS = {
    "uniform": "a guess among all tokens alike",
    "unigram": "how often the agent says each token",
    "bigram": "what the agent says after the token before",
    "clone": "this policy",
}


def _wording(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """`wording.json` with a row per predictor, the weakest first, for the table."""
    if not found:
        return None
    nats = found.get("nats", {})
    rows = [
        {"what": what, **nats[name], "perplexity": math.exp(nats[name]["mean"])}
        for name, what in _PREDICTORS.items()
        if name in nats
    ]
    return {**found, "rows": rows}


def _cards(runs: Sequence[RunFiles], titles: Mapping[str, str]) -> list[dict[str, Any]]:
    """The data cards of the runs, each once, with the runs that learnt from those logs."""
    found: list[dict[str, Any]] = []
    for run in runs:
        if not run.card:
            continue
        entry = next((entry for entry in found if entry["card"] == run.card), None)
        if entry is None:
            plot = _histogram(run.card, f"histogram-{len(found)}")
            entry = {"card": run.card, "names": [], "lines": _lines(run), "plot": plot}
            found.append(entry)
        entry["names"].append(titles.get(run.name, run.name))
    return found


def _lines(run: RunFiles) -> list[tuple[str, str]]:
    """The card in words, with minus signs as typeset; a file's name keeps its hyphens."""
    assert run.card is not None
    try:
        lines = describe(run.card)
    except KeyError as error:
        raise InputError(f"{run.folder / 'card.json'}: no {error.args[0]!r}") from None
    return [(name, value if name == "File" else typeset(value)) for name, value in lines]


def _histogram(card: Mapping[str, Any], key: str) -> Markup | None:
    bins = card.get("histogram")
    return bins and histogram_plot(bins["edges"], bins["counts"], card["return"]["mean"], key)
