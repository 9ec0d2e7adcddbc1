"""Logs written and read again are the same conversations."""

from __future__ import annotations

from pathlib import Path

import turnwise as tw


def test_recorded_logs_come_back(tmp_path: Path) -> None:
    """A scripted agent that always names the first fix; its conversations as a file."""

    def speak(messages, rng):
        return "You need a new battery"

    logs = tw.record("helpdesk", speak, conversations=12, seed=3)
    assert logs.source == "helpdesk, speak" and all(len(d.turns) == 1 for d in logs)
    assert {d.undiscounted_return() for d in logs} <= {1.0, -1.0}
    assert tw.write_logs(tmp_path / "logs.jsonl", logs) == 12
    assert tw.read_logs(tmp_path / "logs.jsonl") == logs
    assert tw.record(tw.HelpDesk(), speak, conversations=12, seed=3) == logs
