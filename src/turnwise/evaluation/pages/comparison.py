"""comparison.json: several policies and what is known of the task, for one table and one page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from turnwise.run.errors import InputError

ROLES = ("optimum", "behaviour", "baseline", "method")
"""what a row or a reference is: the best possible policy, the policy that wrote the logs, what methods must
beat, or a policy that is compared"""


MEASURED_IN = ("task", "env", "score", "discount", "horizon")
"""what a row must share with every other row of its comparison, as far as evaluations say: returns of two
tasks are numbers in two units"""


def row(name: str, folder: Path, base: Path, note: str = "", role: str = "method") -> dict[str, Any]:
    """A row of the table, from the evaluation in the run folder `folder` below `base`.

    Raises InputError if the run was not evaluated.
    """
    path = folder / "evaluation.json"
    if not path.exists():
        raise InputError(
            f"{folder}: evaluation.json is missing; expected an evaluated run (turnwise evaluate)"
        )
    found = json.loads(path.read_text(encoding="utf-8"))
    kept = ("mean", "low", "high", "episodes", "success", "turns")
    measured = {k: found[k] for k in MEASURED_IN if k in found}
    return {
        "name": name,
        "role": role,
        "run": folder.relative_to(base).as_posix(),
        **{k: found[k] for k in kept},
        **measured,
        "note": note,
    }


def comparison(
    *,
    title: str,
    aim: str,
    command: str,
    task: str,
    rows: Sequence[Mapping[str, Any]],
    references: Sequence[Mapping[str, Any]],
    said: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The contents of comparison.json. `rows` are made by `row`; a reference has name, role, mean, and may
    have low, high, episodes, note. The sentence "x% of the way from A to the optimum" is written only if
    one has the role `optimum` and another `baseline` or `behaviour`. `said` is what was said before anybody
    talked to them (`improved.said_before`). InputError for rows that were not measured in one task.
    """
    expect_one_task("comparison", rows)
    return {
        "title": title,
        "aim": aim,
        "command": command,
        "task": task,
        "score": "mean return",
        "higher_is_better": True,
        "confidence": 0.95,
        "rows": list(rows),
        "references": list(references),
        "runs": {r["name"]: r["run"] for r in rows},
        "said": said,
    }


def expect_rows(path: Path, found: Mapping[str, Any]) -> None:
    """Refuse rows and references without a name, or with an unknown role. Names file and entry."""
    for key in ("rows", "references"):
        for i, entry in enumerate(found.get(key, []), 1):
            if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
                raise InputError(f"{path}: {key}, entry {i}: expected an object with a name")
            role = entry.get("role")
            if role is not None and role not in ROLES:
                expected = ", ".join(ROLES)
                raise InputError(f"{path}: {key}, entry {i}: role is {role!r}; expected one of {expected}")
    expect_one_task(str(path), found.get("rows", []))


def expect_one_task(where: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Refuse rows measured in two tasks, or in two ways; what a row does not say is not held against it."""
    for key in MEASURED_IN:
        first: dict[str, str] = {}
        for entry in rows:
            if entry.get(key) is not None:
                first.setdefault(str(entry[key]), entry["name"])
        if len(first) > 1:
            found = ", ".join(f"{name!r} in {value}" for value, name in first.items())
            raise InputError(f"{where}: expected rows measured in one {key}; found {found}")
