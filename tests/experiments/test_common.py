"""What experiments share: parts are made once, and a rehearsal touches no committed result."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def common(load_script):
    return load_script(ROOT / "experiments" / "common.py")


def test_a_part_is_made_once(common, tmp_path):
    """The second call finds the file: it makes nothing and says so by None."""
    file, made = tmp_path / "a.json", []

    def make():
        made.append(1)
        return {"value": 3}

    assert common.make_part(file, make) == {"value": 3}
    assert common.make_part(file, make) is None
    assert len(made) == 1 and common.read_part(file) == {"value": 3}


def test_a_part_that_failed_leaves_no_file(common, tmp_path):
    """An experiment that is started again makes it."""

    def fail():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        common.make_part(tmp_path / "a.json", fail)
    assert list(tmp_path.iterdir()) == []


def test_truths_stand_apart_from_rows(common, tmp_path):
    """By problem, and in the order of file names."""
    for name, value in (("truth-tiger", 1), ("tiger-gru-1", 3), ("tiger-gru-0", 2)):
        (tmp_path / f"{name}.json").write_text(json.dumps(value))
    assert common.read_truths_and_rows(tmp_path) == ({"tiger": 1}, [2, 3])


def test_the_story_is_the_docstring_below_its_usage(common):
    """Title, usage, then two paragraphs."""
    assert common.story_of("Title.\n\n    python x.py\n\nOne.\n\nTwo.\n") == "One.\n\nTwo."


def test_a_rehearsal_writes_among_its_runs(common, tmp_path, monkeypatch):
    """Results, page and figure: beside the script they would replace those of the real runs."""
    monkeypatch.setenv("TURNWISE_REHEARSAL", "1")
    figure, _ = common.pyplot().subplots()
    common.write_results(tmp_path, "rehearsed", {"rows": []})
    common.write_page(tmp_path, "rehearsed", "text")
    common.write_figure(tmp_path, "rehearsed", figure)
    written = sorted(f.name for f in (tmp_path / "results").iterdir())
    assert written == ["rehearsed.json", "rehearsed.md", "rehearsed.svg"]
    assert not list((ROOT / "experiments").glob("rehearsed.*"))


def test_a_rehearsal_of_an_experiment(load_script, tmp_path, monkeypatch, capsys):
    """Made from its parts to its page, twice: the second time there is nothing to make."""
    monkeypatch.setenv("TURNWISE_REHEARSAL", "1")
    module = load_script(ROOT / "experiments" / "memory_tasks.py")
    words = ["memory_tasks.py", "--runs", str(tmp_path), "--tasks", "cue-recall", "--seeds", "0"]
    monkeypatch.setattr("sys.argv", words)
    module.main()
    first = (tmp_path / "results" / "memory_tasks.md").read_text()
    assert first.startswith("# Agents on tasks that need memory") and first.count("| cue-recall |") == 2
    capsys.readouterr()
    module.main()
    assert ": 0 s" not in capsys.readouterr().out
    assert (tmp_path / "results" / "memory_tasks.md").read_text() == first
