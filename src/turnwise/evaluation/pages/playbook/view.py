"""What the page of a plan over acts shows, computed from `playbook.json` and the files beside it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from turnwise.evaluation.measures.playbook.schema import Playbook
from turnwise.evaluation.pages.layout import Page
from turnwise.evaluation.pages.playbook.model import fit_view, warnings_view
from turnwise.evaluation.pages.playbook.phrases import Phrases
from turnwise.evaluation.pages.playbook.picture import playbook_picture
from turnwise.evaluation.pages.playbook.plan import acts_view, graph_view, looks_view, states_view
from turnwise.evaluation.pages.playbook.talks import talks_view
from turnwise.evaluation.pages.playbook.worth import worth_view
from turnwise.evaluation.pages.provenance import facts_of_runs
from turnwise.evaluation.pages.run_files import RunFiles, read_object, read_run
from turnwise.evaluation.pages.training import training_view
from turnwise.run.errors import InputError

_PARTS = tuple(
    f"playbook/{name}.html"
    for name in ("answer", "warnings", "states", "plan", "looks", "talks", "acts", "model")
)


def playbook_page(run: RunFiles) -> Page:
    """The page of `playbook.json`, with the evaluation and the learning curves that lie beside it.

    Raises InputError, naming the file, if it is no playbook.
    """
    path = run.folder / "playbook.json"
    with _named(path):
        values = _view(cast(Playbook, read_object(path)), run)
    parts = (*_PARTS, "curves.html") if run.metrics else _PARTS
    return Page(parts, "playbook/words.html", values, [run])


def picture_of(folder: Path) -> str:
    """`playbook.json` of a folder as a picture (SVG); raises InputError as `playbook_page` does."""
    path = folder / "playbook.json"
    with _named(path):
        return playbook_picture(cast(Playbook, read_object(path)), read_run(folder, folder.resolve().name))


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """What is no playbook is an InputError that names the file."""
    try:
        yield
    except KeyError as error:
        raise InputError(f"{path}: no {error.args[0]!r}; expected what turnwise train pomdp writes") from None
    except (TypeError, ValueError, IndexError, AttributeError) as error:
        raise InputError(f"{path}: expected what turnwise train pomdp writes ({error})") from None


def _view(book: Playbook, run: RunFiles) -> dict[str, Any]:
    say = Phrases(book)
    config = run.config or {}
    worth = worth_view(book, run)
    return {
        "title": book["title"] or run.name,
        "aim": "A plan for conversations that was learnt from logs: what may be going on, what to say, and "
        "what the answers mean.",
        "facts": _facts(book, run, config),
        "folder": str(run.folder),
        "confidence": f"{100 * book['confidence']:g}",
        "worth": worth,
        "warnings": warnings_view(book),
        "states": states_view(book, say),
        "looks": looks_view(book, say),
        "plan": graph_view(book, say),
        "talks": talks_view(book, say),
        "acts": acts_view(book, say),
        "fit": fit_view(book),
        "runs": [{"id": "r0", "title": run.name, "folder": run.folder.name, "there": True,
                  **training_view(run)}],
    }  # fmt: skip


def _facts(book: Playbook, run: RunFiles, config: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = [("learnt from", str(config["logs"]))] if "logs" in config else []
    facts += [
        ("hidden states", str(len(book["states"]))),
        ("acts", str(len(book["acts"]))),
        ("answers", str(len(book["answers"]))),
    ]
    task = (run.evaluation or {}).get("task")
    return [*facts, *facts_of_runs([run], run.folder / "playbook.json", task)]
