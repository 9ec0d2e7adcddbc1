"""Several policies and what is known exactly, in one table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from turnwise.run.errors import InputError


def row(name: str, folder: Path, base: Path, note: str = "") -> dict[str, Any]:
    """A line of the table, from the evaluation in a run folder."""
    path = folder / "evaluation.json"
    if not path.exists():
        raise InputError(
            f"{folder}: evaluation.json is missing; expected an evaluated run (turnwise evaluate)"
        )
    found = json.loads(path.read_text(encoding="utf-8"))
    kept = ("mean", "low", "high", "episodes", "success", "turns")
    return {
        "name": name,
        "run": folder.relative_to(base).as_posix(),
        **{k: found[k] for k in kept},
        "note": note,
    }


def comparison(
    *,
    title: str,
    asked: str,
    command: str,
    task: str,
    rows: Sequence[Mapping[str, Any]],
    references: Sequence[Mapping[str, Any]],
    selection: str,
) -> dict[str, Any]:
    """What `report` reads as comparison.json."""
    return {
        "title": title,
        "asked": asked,
        "command": command,
        "task": task,
        "score": "mean return",
        "higher_is_better": True,
        "confidence": 0.95,
        "rows": list(rows),
        "references": list(references),
        "runs": {r["name"]: r["run"] for r in rows},
        "selection": selection,
    }
