"""A run folder as it lies on disk, for pages: every file may be missing, none may be broken."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from turnwise.run.errors import InputError
from turnwise.run.files.lock import has_ended
from turnwise.run.folder import read_config
from turnwise.run.metrics import Metric

FAMILIES = (
    "logs",
    "partners",
    "codebooks",
    "act_agents",
    "plans",
    "talkers",
    "conversations",
    "preferences",
    "replies",
    "reward",
    "acting",
)
"""what algorithms learn from, which decides the kind of page: logged conversations, their other side, their
acts, a model of them, talks or conversations of their own, preferences, rewards of sampled replies, feedback
(a reward model), or steps in an environment"""
RUN_FILES = (
    "config.yaml",
    "env.json",
    "metrics.jsonl",
    "card.json",
    "evaluation.json",
    "conversations.jsonl",
)
_NOT_A_NUMBER = {"NaN": None}.get  # NaN and infinities are read as missing


@dataclass(frozen=True)
class Algorithm:
    """What a run says of the algorithm that made it; nothing here is inferred from names."""

    name: str
    title: str
    what: str
    family: str | None
    """one of FAMILIES; None if the run does not say"""
    metrics: Mapping[str, Metric]
    """by key; the same metric on held-out data is logged as `heldout/KEY`"""


@dataclass(frozen=True)
class RunFiles:
    """What a run folder holds; a file that is missing is None or empty here."""

    name: str
    folder: Path
    algorithm: Algorithm
    config: Mapping[str, Any] | None
    env: Mapping[str, Any] | None
    card: Mapping[str, Any] | None
    evaluation: Mapping[str, Any] | None
    critic: Mapping[str, Any] | None
    """what the critic knows of returns that it has not seen"""
    wording: Mapping[str, Any] | None
    """how well a clone predicts the logged agent, and what it says"""
    estimate: Mapping[str, Any] | None
    """what other logs say that the policy is worth"""
    metrics: Sequence[Mapping[str, Any]]
    conversations: Sequence[Mapping[str, Any]]

    @property
    def ended(self) -> bool:
        """Whether training came to its end."""
        return has_ended(self.folder)


def read_run(folder: Path, name: str) -> RunFiles:
    """A run folder as it lies on disk; raises InputError for a file that cannot be read."""
    config = read_config(folder) if (folder / "config.yaml").is_file() else None
    objects = ("env", "card", "evaluation", "critic", "wording", "estimate")
    env, card, evaluation, critic, wording, estimate = (
        read_object(folder / f"{key}.json") for key in objects
    )
    metrics, conversations = (read_lines(folder / f"{key}.jsonl") for key in ("metrics", "conversations"))
    for i, conversation in enumerate(conversations, 1):
        messages = conversation.get("messages")
        if not messages or not all(isinstance(m, dict) and {"role", "content"} <= m.keys() for m in messages):
            where = f"{folder / 'conversations.jsonl'}: conversation {i}"
            raise InputError(f"{where}: messages: expected a list, each with role and content")
    algorithm = read_algorithm(folder / "algorithm.json", config or {}, name)
    parts = (env, card, evaluation, critic, wording, estimate)
    return RunFiles(name, folder, algorithm, config, *parts, metrics, conversations)


def read_algorithm(path: Path, config: Mapping[str, Any], run: str) -> Algorithm:
    """`algorithm.json`; what it lacks comes from the settings: a name, a family, and no declared metric.

    Raises InputError, naming file and field, for what is not of this form.
    """
    found = read_object(path) or {}
    name = str(found.get("name") or config.get("algorithm") or run)
    family = found.get("family", config.get("family"))
    if family is not None and family not in FAMILIES:
        where = path if "family" in found else path.with_name("config.yaml")
        raise InputError(f"{where}: family is {family!r}; expected one of {', '.join(FAMILIES)}")
    declared = found.get("metrics", {})
    if not isinstance(declared, dict):
        raise InputError(f"{path}: metrics: expected an object with one entry a metric")
    metrics = {key: _metric(path, key, fields) for key, fields in declared.items()}
    return Algorithm(name, str(found.get("title") or name), str(found.get("what", "")), family, metrics)


def _metric(path: Path, key: str, fields: Any) -> Metric:
    kinds = {"what": str, "unit": str, "loss": bool, "panel": str, "about": str}
    fine = isinstance(fields, dict) and "what" in fields
    if not fine or any(name in fields and not isinstance(fields[name], kinds[name]) for name in kinds):
        raise InputError(f"{path}: metrics: {key}: expected what (text), unit (text), loss (true or false)")
    return Metric(**{name: value for name, value in fields.items() if name in kinds})


def read_object(path: Path) -> dict[str, Any] | None:
    """The JSON object of a file; None if there is no file."""
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"), parse_constant=_NOT_A_NUMBER)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not JSON ({error})") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: expected one JSON object")
    return found


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file. A last line that an interrupted run did not finish is left out."""
    if not path.is_file():
        return []
    found = []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    for i, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line, parse_constant=_NOT_A_NUMBER)
        except json.JSONDecodeError as error:
            if i == len(lines):  # what follows the last newline
                break
            raise InputError(f"{path}:{i}: not JSON ({error})") from None
        if not isinstance(value, dict):
            raise InputError(f"{path}:{i}: expected a JSON object")
        found.append(value)
    return found
