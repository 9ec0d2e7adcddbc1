"""`turnwise talk`: what is typed is answered, in a terminal or from a file."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

import turnwise as tw
from turnwise.cli import main

TALK = [{"role": "user", "content": "Is it [red]?"}, {"role": "assistant", "content": "It is [bold]red"}]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("talk") / "bc"
    small = {"width": 16, "layers": 1, "heads": 2, "context": 64, "vocab": 300, "max_new_tokens": 8}
    tw.fit(tw.BC(epochs=1.0), [{"messages": TALK}] * 8, out=out, quiet=True, heldout=0.0, **small)
    return out


def talk(monkeypatch: pytest.MonkeyPatch, typed: str, *args: str) -> int:
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    return main(["talk", *args])


def test_each_line_is_answered_with_the_conversation_so_far(run, monkeypatch, capsys) -> None:
    """The same lines with the same seed give the replies of `Policy.reply` on the same messages."""
    assert talk(monkeypatch, "Is it?\nSure?\n", str(run), "--json", "--seed", "3") == 0
    messages = json.loads(capsys.readouterr().out)["messages"]
    assert [m["role"] for m in messages] == ["user", "assistant", "user", "assistant"]
    policy = tw.load(run)
    assert messages[1]["content"] == policy.reply(messages[:1], seed=3 + 1)
    assert messages[3]["content"] == policy.reply(messages[:3], seed=3 + 3)


def test_an_exchange_can_be_taken_back_and_a_conversation_begun_anew(run, monkeypatch, capsys) -> None:
    typed = "One\n/new\nTwo\nThree\n/undo\n"
    assert talk(monkeypatch, typed, str(run), "--json", "--system", "Be kind.") == 0
    messages = json.loads(capsys.readouterr().out)["messages"]
    assert [m["role"] for m in messages] == ["system", "user", "assistant"]
    assert messages[1]["content"] == "Two"


def test_the_policy_may_speak_first(run, monkeypatch, capsys) -> None:
    assert talk(monkeypatch, "", str(run), "--json", "--agent-first") == 0
    assert [m["role"] for m in json.loads(capsys.readouterr().out)["messages"]] == ["assistant"]


def test_a_full_context_is_an_error_in_plain_words(run, monkeypatch, capsys) -> None:
    assert talk(monkeypatch, "word " * 80 + "\n", str(run)) == 2
    assert "context of 64" in capsys.readouterr().err


def test_what_is_no_policy_is_refused(tmp_path, monkeypatch, capsys) -> None:
    assert talk(monkeypatch, "Hello\n", str(tmp_path / "nothing-here")) == 2
    assert "nothing-here" in capsys.readouterr().err
