"""How a run was made, as every page shows it: command, settings, versions, names of its metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from turnwise.evaluation.pages.run_files import RunFiles
from turnwise.evaluation.pages.training import base_key


def provenance(runs: Sequence[RunFiles], command: str | None = None) -> dict[str, Any]:
    """Command, what the runs' settings and machines agree and differ on, and their declared metrics."""
    if command is None and len(runs) == 1:
        command = (runs[0].env or {}).get("command")
    return {
        "command": command,
        "settings": agreement([run.config for run in runs]),
        "environment": agreement([flat(run.env) for run in runs]),
        "declared": _declared(runs),
    }


def facts_of_runs(runs: Sequence[RunFiles], source: Path, task: object = None) -> list[tuple[str, str]]:
    """What stands under the title: the task, when `source` was written, the seeds, whether training ended."""
    seeds = sorted({str(run.config["seed"]) for run in runs if run.config and "seed" in run.config})
    written = datetime.fromtimestamp(source.stat().st_mtime, UTC).strftime("%Y-%m-%d %H:%M UTC")
    facts = [("task", task), ("when", written), ("seed", ", ".join(seeds))]
    if len(runs) == 1 and runs[0].config is not None and not runs[0].ended:
        facts.append(("state", "training has not come to its end"))
    return [(name, str(value)) for name, value in facts if value]


def flat(values: Mapping[str, Any] | None, prefix: str = "") -> dict[str, Any]:
    """Nested keys joined by a space: {"a": {"b": 1}} is {"a b": 1}."""
    found: dict[str, Any] = {}
    for key, value in (values or {}).items():
        found |= flat(value, f"{prefix}{key} ") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def agreement(maps: Sequence[Mapping[str, Any] | None]) -> dict[str, Any]:
    """`same`: entries that all the maps share. `differs`: keys on which they differ, or that some lack."""
    known = [m for m in maps if m]
    keys = list(dict.fromkeys(key for m in known for key in m))
    same = {k: known[0][k] for k in keys if all(k in m and m[k] == known[0].get(k) for m in known)}
    return {"same": same, "differs": [key for key in keys if key not in same]}


def _declared(runs: Sequence[RunFiles]) -> list[tuple[str, str, str]]:
    """(name, key, what else is declared) of every metric that was logged, in the order of declaration."""
    found: dict[str, tuple[str, str, str]] = {}
    for run in runs:
        logged = {base_key(key) for row in run.metrics for key in row}
        for key, fact in run.algorithm.metrics.items():
            if key in logged:
                notes = [*(["a loss"] if fact.loss else []), *([f"unit: {fact.unit}"] if fact.unit else [])]
                found.setdefault(key, (fact.what, key, "; ".join(notes)))
    return list(found.values())
