"""The run folder: what was asked, where it ran, what came of it. One format for every algorithm."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from turnwise.run.errors import InputError

PACKAGES = ("turnwise", "torch", "numpy", "transformers", "tokenizers", "peft")


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def expect_fresh(folder: Path, *, resume: bool) -> None:
    """Refuse to write into a folder that holds something, unless its run is to be resumed."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--out {folder}: a file of that name exists; expected a folder")
    if resume or not folder.exists() or not any(folder.iterdir()):
        return
    what = "another run" if (folder / "config.yaml").exists() else "other files"
    raise InputError(f"--out {folder}: the folder holds {what}; expected a new folder, or --resume")


def write_config(folder: Path, asked: Mapping[str, Any], *, resume: bool) -> None:
    """Store what was asked; a resumed run must have asked for the same."""
    path = folder / "config.yaml"
    asked = json.loads(json.dumps(dict(asked), default=str))
    if resume and path.exists():
        before = yaml.safe_load(path.read_text(encoding="utf-8"))
        for key in sorted({*before, *asked}):
            if before.get(key) != asked.get(key):
                raise InputError(
                    f"--resume {folder}: {key} was {before.get(key)!r} and is {asked.get(key)!r} now; "
                    "expected the settings that the run began with"
                )
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, yaml.safe_dump(asked, sort_keys=False, allow_unicode=True))
    write_json(folder / "env.json", environment())


def read_config(folder: Path) -> dict[str, Any]:
    """What a run was asked to do."""
    path = folder / "config.yaml"
    if not path.exists():
        raise InputError(f"{folder}: config.yaml is missing; expected a run folder")
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def environment() -> dict[str, Any]:
    """Versions, hardware and command, to tell why two runs differ."""
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "git": _git(),
        "command": " ".join(["turnwise", *sys.argv[1:]]),
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor()


def _git() -> dict[str, Any] | None:
    """Commit of the source tree, if it runs from one."""
    here = Path(__file__).parent
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, timeout=5, check=True
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "status", "--porcelain", "-uno"],
            cwd=here,
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "changed": bool(changed)}
