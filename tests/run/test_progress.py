"""What a person sees of work under way."""

from __future__ import annotations

import io
import sys

import pytest

from turnwise.run import progress
from turnwise.run.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_short_work_is_not_talked_about(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("bc", 3) as bar:
        for done in (1, 2, 3):
            bar.at(done, {"loss": 1.0})
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("done", "left"), [(30, "6m48s"), (130, "34s"), (200, "0s")])
def test_lines_in_a_log_file(
    done: int, left: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Resumed at 5 of 200, a minute ago: 25 steps took 60 s, 170 take 408 s; or 125, and 70 take 34 s."""
    monkeypatch.setattr(progress, "PLAIN_EVERY", 0.0)
    with Progress("ilql", 200, done=5) as bar:
        bar.began -= 60
        bar.at(done, {"td": 0.123456, "q": -2.0})
    assert capsys.readouterr().err == f"ilql: {done}/200  left {left}  td 0.1235  q -2\n"


def test_lines_come_sooner_in_a_notebook(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five seconds after the last line: one in a notebook, none in a log file."""
    shown = []
    for notebook in (False, True):
        if notebook:
            monkeypatch.setitem(sys.modules, "ipykernel", sys)
        with Progress("ilql", 200) as bar:
            bar.spoke -= 5
            bar.at(10)
        shown.append(capsys.readouterr().err.count("10/200"))
    assert shown == [0, 1]


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PLAIN_EVERY", 0.0)
    with Progress("bc", 3, quiet=True) as bar:
        bar.began -= 60
        bar.at(2)
        bar.at(3)
    assert capsys.readouterr() == ("", "")


def test_a_bar_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with Progress("mc", 40, done=10) as bar:
        bar.at(11, {"loss": 0.25})
        bar.at(40, {"loss": 0.125})
    shown = screen.getvalue()
    assert "mc" in shown
    assert "40/40" in shown
    assert "loss 0.125" in shown
