"""Experiments and benchmarks start: each can be imported, and explains itself."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HELPERS = ("belief_graphs", "candidates", "common", "desks", "judging", "pomdp_tables", "problems", "worlds")
"""what scripts import, which cannot be run"""
SCRIPTS = [
    file
    for folder in ("experiments", "benchmarks")
    for file in sorted((ROOT / folder).glob("*.py"))
    if file.stem not in HELPERS
]


@pytest.mark.parametrize("file", SCRIPTS, ids=lambda f: f"{f.parent.name}/{f.name}")
def test_a_script_explains_itself(file, load_script, monkeypatch, capsys):
    """`--help` begins with the docstring's title; the docstring's command lines have options of `--help`."""
    module = load_script(file)
    monkeypatch.setattr(sys, "argv", [str(file), "--help"])
    with pytest.raises(SystemExit) as stopped:
        module.main()
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    title = " ".join(module.__doc__.split("\n\n")[0].split())
    assert title in " ".join(shown.split())
    known = {word.strip("[]") for word in shown.split("\n\n")[0].split()}
    lines = [x for x in module.__doc__.splitlines() if f"python {file.parent.name}/{file.name}" in x]
    assert lines, "the docstring shows how the script is called"
    for line in lines:
        # What the command does stands beside it, after several spaces.
        words = re.split(r" {2,}", line.split(file.name)[1])[0].replace("[", "").replace("]", "").split()
        assert {w for w in words if w.startswith("--")} <= known, line
