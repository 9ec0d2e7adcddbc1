"""Files are written whole or not at all, and a run folder belongs to one run."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import yaml

from turnwise.run.errors import InputError
from turnwise.run.folder import (
    environment,
    expect_fresh,
    read_config,
    whole_file,
    write_config,
    write_json,
    write_text,
)


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_json(file, {"old": "Größe"})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(file, {"new": float("nan")})
    with pytest.raises(RuntimeError, match="disk"), whole_file(file) as part:
        part.write_text("half of")
        raise RuntimeError("disk full")
    assert json.loads(file.read_text(encoding="utf-8")) == {"old": "Größe"}
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_first_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), whole_file(tmp_path / "a") as part:
        part.write_bytes(b"half of")
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_a_fresh_folder_is_missing_or_empty(tmp_path: Path) -> None:
    expect_fresh(tmp_path / "none", resume=False)
    expect_fresh(tmp_path, resume=False)
    expect_fresh(tmp_path / "none", resume=True)


def test_another_run_is_refused_unless_resumed(tmp_path: Path) -> None:
    write_config(tmp_path, {"lr": 0.1}, resume=False)
    with pytest.raises(InputError, match=r"^out is .*; expected .*, or resume; this one holds another run"):
        expect_fresh(tmp_path, resume=False)
    expect_fresh(tmp_path, resume=True)


@pytest.mark.parametrize("resume", [False, True])
def test_other_things_are_refused_always(tmp_path: Path, resume: bool) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(InputError, match=r"expected a new folder; this one holds other files$"):
        expect_fresh(tmp_path, resume=resume)
    with pytest.raises(InputError, match=r"thesis.tex'; expected a folder; a file of that name exists"):
        expect_fresh(tmp_path / "thesis.tex", resume=resume)


ASKED = {"lr": 1e-5, "betas": (1.0, 4.0), "clip": None, "logs": Path("a/b.jsonl"), "name": "1e-4"}


def test_settings_come_back_as_they_were(tmp_path: Path) -> None:
    """Numbers as numbers (YAML reads an unquoted 1e-5 as text), and text that looks like one as text."""
    write_config(tmp_path / "new" / "run", ASKED, resume=False)
    want = {**ASKED, "betas": [1.0, 4.0], "logs": "a/b.jsonl"}
    assert read_config(tmp_path / "new" / "run") == want
    assert list(read_config(tmp_path / "new" / "run")) == list(ASKED)


def test_resuming_with_the_same_settings_changes_nothing(tmp_path: Path) -> None:
    write_config(tmp_path, ASKED, resume=False)
    before = {f: (f.read_bytes(), f.stat().st_mtime_ns) for f in tmp_path.iterdir()}
    write_config(tmp_path, ASKED, resume=True)
    assert {f: (f.read_bytes(), f.stat().st_mtime_ns) for f in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lr": 1e-4}, "lr was 1e-05 and is 0.0001 now"),
        ({"betas": (1.0,)}, r"betas was \[1.0, 4.0\] and is \[1.0\] now"),
        ({"gamma": 0.9}, "gamma was none and is 0.9 now"),
    ],
)
def test_resuming_with_other_settings_names_the_field(tmp_path: Path, change: dict, words: str) -> None:
    write_config(tmp_path, ASKED, resume=False)
    with pytest.raises(InputError, match=rf": {words}; expected the settings"):
        write_config(tmp_path, ASKED | change, resume=True)
    assert read_config(tmp_path)["lr"] == 1e-5


def test_resuming_what_never_began_begins_it(tmp_path: Path) -> None:
    write_config(tmp_path, {"lr": 0.1}, resume=True)
    assert read_config(tmp_path) == {"lr": 0.1}


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "expected settings"), (b"- 1", "expected settings"), (b"a: [", "not readable as YAML")],
)
def test_a_config_that_is_none_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(InputError, match=rf"config.yaml: {words}"):
        read_config(tmp_path)


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "")
    with pytest.raises(InputError, match=r"config.yaml is missing; expected a run folder"):
        read_config(tmp_path)


def test_environment_tells_runs_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/turnwise", "train", "bc", "--logs", "my logs.jsonl"])
    monkeypatch.setenv("WORLD_SIZE", "4")
    write_config(tmp_path, {"lr": 0.1}, resume=False)
    env = json.loads((tmp_path / "env.json").read_text())
    assert env["command"] == "turnwise train bc --logs 'my logs.jsonl'"
    assert env["processes"] == 4
    assert env["packages"]["torch"].startswith("2.")
    assert env["cores"] == os.cpu_count()
    assert env.keys() == environment().keys()
    assert yaml.safe_load((tmp_path / "config.yaml").read_text()) == {"lr": 0.1}


def test_the_commit_is_that_of_the_source_tree() -> None:
    git = environment()["git"]
    in_tree = (Path(__file__).parents[2] / ".git").exists()
    assert (git is not None and len(git["commit"]) == 40) if in_tree else git is None
