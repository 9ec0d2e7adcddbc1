"""A run folder as it lies on disk, for pages: every file may be missing, none may be broken."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from turnwise.run.errors import InputError
from turnwise.run.folder import read_config

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


def read_run(folder: Path, name: str) -> Run:
    """A run folder as it lies on disk; raises InputError for a file that cannot be read."""
    config = read_config(folder) if (folder / "config.yaml").is_file() else None
    env, card, evaluation = (object_of(folder / f"{key}.json") for key in ("env", "card", "evaluation"))
    metrics, conversations = (lines_of(folder / f"{key}.jsonl") for key in ("metrics", "conversations"))
    for i, conversation in enumerate(conversations, 1):
        messages = conversation.get("messages")
        if not messages or not all(isinstance(m, dict) and {"role", "content"} <= m.keys() for m in messages):
            where = f"{folder / 'conversations.jsonl'}: conversation {i}"
            raise InputError(f"{where}: messages: expected a list, each with role and content")
    return Run(name, folder, config, env, card, evaluation, metrics, conversations)


def object_of(path: Path) -> dict[str, Any] | None:
    """The JSON object of a file; None where there is no file."""
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"), parse_constant=_NOT_A_NUMBER)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not JSON ({error})") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: expected one JSON object")
    return found


def lines_of(path: Path) -> list[dict[str, Any]]:
    """Objects of a JSONL file. A last line without its end (an interrupted run) is left out."""
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
