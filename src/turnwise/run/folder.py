"""The run folder: settings, machine, results. One format for every algorithm."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from turnwise.run.errors import InputError, SettingError
from turnwise.run.files.lock import LOCK, RESULT
from turnwise.run.files.whole import PART, whole_file

PACKAGES = ("turnwise", "torch", "numpy", "transformers", "tokenizers", "peft")


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole or not at all. ValueError for a number that JSON does not have (nan)."""
    write_text(path, as_json(value))


def as_json(value: Any) -> str:
    """JSON as people read it. ValueError for a number that JSON does not have (nan)."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def digest(rows: Iterable[Any]) -> str:
    """Number of rows (values, or their bytes) and a short hash: a resumed run must have the same."""
    found, count = hashlib.sha256(), 0
    for row in rows:
        found.update(row if isinstance(row, bytes) else repr(row).encode())
        count += 1
    return f"{count} rows, {found.hexdigest()[:12]}"


FORMAT = 1
"""of run folders; one of another format is refused"""
BEGINNINGS = {LOCK, "env.json", "env.json" + PART, "config.yaml" + PART}
"""what a run may leave that died before its settings were written: it has not begun"""


def expect_fresh(folder: Path, *, resume: bool) -> None:
    """SettingError for a folder that is not empty, unless it holds a run and `resume` is set."""
    if folder.exists() and not folder.is_dir():
        raise SettingError("out", str(folder), "a folder; a file of that name exists")
    if not folder.exists() or {f.name for f in folder.iterdir()} <= BEGINNINGS:
        return
    if not (folder / "config.yaml").exists():
        raise SettingError("out", str(folder), "a new folder; this one holds other files")
    if not resume:
        raise SettingError("out", str(folder), "a new folder, or resume; this one holds another run")


CHANGES = "changes"
"""key of config.yaml: what resumed runs changed, [{after_step, NAME: [was, is]}]"""


def write_config(
    folder: Path,
    settings: Mapping[str, Any],
    *,
    resume: bool,
    may_change: Collection[str] = (),
    places: Collection[str] = (),
) -> bool:
    """Store the settings of a run; whether a resumed run has others. InputError if it may not have them.

    Settings of `may_change` may have other values when it is resumed. The new ones count from the checkpoint
    on, and take the place of those that the run began with; what was changed, and when, is kept as `changes`.
    Those of `places` say where something lies, whose content another setting says: they change in silence.
    """
    path = folder / "config.yaml"
    settings = json.loads(json.dumps(dict(settings), default=str))
    if resume and path.exists():
        before = read_config(folder)
        changes = before.pop(CHANGES, [])
        changed: dict[str, Any] = {}
        moved = any(before.get(key) != settings.get(key) for key in places)
        for key in sorted({*before, *settings}):
            was, now = before.get(key), settings.get(key)
            if was == now or key in places:
                continue
            if key not in may_change:
                was, now = ("none" if x is None else repr(x) for x in (was, now))
                free = f" ({', '.join(may_change)} may change)" if may_change else ""
                raise InputError(
                    f"{folder}: {key} was {was} and is {now} now; expected the settings that the run began "
                    f"with, as it is resumed{free}"
                )
            changed[key] = [was, now]
        if changed:
            from turnwise.run.files import checkpoint  # torch, which reading settings can do without

            steps = checkpoint.Checkpoints(folder).steps()
            changes.append({"after_step": max(steps, default=0)} | changed)
        if changed or moved:
            _write_yaml(path, {**settings, **({CHANGES: changes} if changes else {})})
        return bool(changed)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "env.json", environment())
    # Written last, because this file makes the folder a run.
    _write_yaml(path, settings)
    return False


def _write_yaml(path: Path, settings: Mapping[str, Any]) -> None:
    write_text(path, yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True))


def read_config(folder: Path) -> dict[str, Any]:
    """The settings of a run."""
    path = folder / "config.yaml"
    if not path.exists():
        raise InputError(f"{folder}: config.yaml is missing; expected a run folder")
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise InputError(f"{path}: not readable as YAML; expected the file that a run writes") from e
    if not isinstance(settings, dict):
        raise InputError(f"{path}: expected settings by name, as a run writes them")
    if settings.get("format", FORMAT) != FORMAT:
        raise InputError(
            f"{path}: the run has format {settings['format']!r}; expected {FORMAT}, which this version of "
            "Turnwise reads"
        )
    return settings


PLACES = ("policy", "reward", "report")
"""entries of a result that name a file or folder of the run"""


def read_result(folder: Path) -> dict[str, Any]:
    """The result of a run (result.json); empty if it has not ended, or if the folder holds no run.

    The places in it are where the run lies now, wherever it lay when it ended.
    """
    path = folder / RESULT
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as e:
        raise InputError(f"{path}: not readable as JSON; expected the file that a run writes") from e
    return (
        found
        | {"run": str(folder)}
        | {name: str(folder / Path(found[name]).name) for name in PLACES if name in found}
    )


def environment() -> dict[str, Any]:
    """Versions, hardware and command, to tell why two runs differ."""
    import torch

    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerators": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "git": _git(),
        "command": shlex.join(["turnwise", *sys.argv[1:]]),
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
    """Commit of the source tree, if it runs from one (and is not merely installed inside another)."""
    try:
        _git_output("ls-files", "--error-unmatch", Path(__file__).name)
        return {
            "commit": _git_output("rev-parse", "HEAD"),
            "changed": bool(_git_output("status", "--porcelain", "-uno")),
        }
    except (OSError, subprocess.SubprocessError):
        return None


def _git_output(*args: str) -> str:
    here = Path(__file__).parent
    # Asking must change nothing: `git status` writes its index anew where it may, and leaves a lock if it is
    # killed meanwhile.
    done = subprocess.run(
        ["git", "--no-optional-locks", *args], cwd=here, capture_output=True, text=True, timeout=5, check=True
    )
    return done.stdout.strip()
