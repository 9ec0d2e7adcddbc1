"""What reaches the terminal: text as text, one line if the system says no, and nothing if nobody reads."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import turnwise as tw
from turnwise.cli import main
from turnwise.cli.say import console, styled
from turnwise.run.files.trouble import in_words
from turnwise.run.files.whole import whole_file, whole_folder
from turnwise.run.terminal import visible

ESCAPE = "\x1b]0;owned\x07 \x9b31m \u202e\x7f [bold] [/red] :smile:"
SHOWN = r"\x1b]0;owned\x07 \x9b31m \u202e\x7f [bold] [/red] :smile:"
SMALL = ["--width", "16", "--layers", "1", "--heads", "2", "--context", "96", "--vocab", "300"]


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Eight conversations, the first of which would like to do things to a terminal; in an empty folder."""
    monkeypatch.chdir(tmp_path)
    talks = [
        [
            {"role": "user", "content": f"hi {text}"},
            {"role": "assistant", "content": f"yes {text}", "reward": 1},
        ]
        for text in (ESCAPE, *"abcdefg")
    ]
    rows = [{"id": f"{i} {ESCAPE}", "messages": talk} for i, talk in enumerate(talks)]
    Path("l[bold]x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "l[bold]x.jsonl"


@pytest.mark.parametrize(
    "words",
    [
        ["data", "check", "--logs", "l[bold]x.jsonl"],
        ["data", "show", "--logs", "l[bold]x.jsonl"],
        ["data", "show", "--logs", "l[bold]x.jsonl", "--id", f"none {ESCAPE}"],
        ["data", "show", "--logs", "l[bold]x.jsonl", "--json"],
        ["data", "check", "--logs", f"no file {ESCAPE}"],
    ],
)
def test_text_of_data_and_paths_is_shown_and_never_obeyed(
    words: list[str], logs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) in (0, 2)
    said = capsys.readouterr()
    assert not any(c in said.out + said.err for c in "\x1b\x9b\x07\u202e\x7f")
    if "show" in words:
        assert SHOWN in said.out + said.err and "l[bold]x.jsonl" in " ".join(words)
    if "--json" in words:
        assert json.loads(said.out)["id"] == f"0 {ESCAPE}"


def test_a_folder_with_brackets_is_a_folder(logs: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The end of a markup that was never begun ended a run after its training."""
    words = ["train", "bc", "--logs", logs, "--out", "runs/[/bold]:smile:", "--epochs", "1", *SMALL]
    assert main(words) == 0 and main(["report", "runs/[/bold]:smile:"]) == 0
    assert capsys.readouterr().out.count("report: runs/[/bold]:smile:/report.html") == 2


def test_what_is_styled_is_the_form_and_not_the_value() -> None:
    text = styled("[bold]{}[/bold] of {}", "[red]7[/red]", "a\x1b[0m")
    assert text.plain == "[red]7[/red] of a\\x1b[0m"
    assert [(s.start, s.end, str(s.style)) for s in text.spans] == [(0, 12, "bold")]


def test_no_verb_prints_markup_or_makes_a_console_of_its_own() -> None:
    """Markup that is printed plainly would be seen, and a plain console of rich would obey that of others."""
    source = Path(tw.__file__).parent
    for file in source.rglob("*.py"):
        text = file.read_text()
        if file.name != "terminal.py":
            assert not re.search(r"(?<!\w)Console\(", text), file
        for call in (x for x in ast.walk(ast.parse(text)) if isinstance(x, ast.Call) and x.args):
            if isinstance(call.func, ast.Attribute) and call.func.attr == "print":
                shown = ast.unparse(call.args[0])
                marked = re.search(r"\[/?(bold|dim|red|yellow|green|reverse)\]", shown)
                assert not marked or "styled(" in shown, f"{file}:{call.lineno}"


def test_tables_and_titles_are_plain_too(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.table import Table

    table = Table(title="a [/b]")
    table.add_column("[/c]", min_width=20)
    table.add_row("\x1b[2Jd [/e]")
    console(False).print(table)
    said = capsys.readouterr().out
    assert all(x in said for x in ("a [/b]", "[/c]", r"\x1b[2Jd [/e]")) and "\x1b" not in said


def test_lines_and_tabs_stay_and_half_characters_can_be_written() -> None:
    assert visible("a\tb\nc é 😀") == "a\tb\nc é 😀"
    assert visible("\ud800\r") == r"\ud800\r"


@contextlib.contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file may have more bytes than `size`: a write beyond them fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_room(
    logs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "bc", "--logs", logs, "--out", "run", "--epochs", "2", *SMALL]
    with full_disk(20_000):
        assert main(words) == 1
    said = capsys.readouterr().err
    assert "turnwise: error: run/checkpoints/step-" in said and ": file too large; expected a place" in said
    assert "Traceback" not in said and not [f for f in Path("run").rglob("*") if "part" in f.name]
    assert main([*words, "--resume"]) == 0
    assert json.loads(Path("run/result.json").read_text())["metrics"]["loss"] > 0


def test_a_library_that_finds_no_room_names_the_folder(tmp_path: Path) -> None:
    """Weights are written by safetensors, whose errors are no OSErrors; nothing half-written stays."""
    for place in (lambda: whole_file(tmp_path / "a"), lambda: whole_folder(tmp_path / "a", "x.safetensors")):
        with full_disk(4000), pytest.raises(OSError, match="File too large") as found, place() as part:
            save_file({"x": torch.zeros(5000)}, part / "x.safetensors" if part.is_dir() else part)
        assert found.value.filename == str(tmp_path / "a")
        assert os.listdir(tmp_path) == []


def test_a_full_disk_names_the_file_that_was_to_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    talk = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "y" * 90}]
    rows = [{"id": str(i), "messages": talk, "reward": 1} for i in range(100)]
    Path("in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for out in ("out.jsonl", "out.jsonl.gz"):
        with full_disk(10 if out.endswith("gz") else 4000):
            assert main(["data", "convert", "in.jsonl", out]) == 1
        assert f"error: {out}: file too large; expected a place" in capsys.readouterr().err
        assert os.listdir(tmp_path) == ["in.jsonl"]


LONG = "a" * 300


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "ppo", "--env", "tiger", "--out", LONG], "file name too long; expected a shorter name"),
        (["train", "ppo", "--env", "tiger", "--out", "f/x"], "f/x: not a directory; expected a folder where"),
        (["evaluate", LONG], "file name too long; expected a shorter name"),
        (["report", LONG], "file name too long; expected a shorter name"),
        (["solve", LONG], "file name too long; expected a shorter name"),
        (["data", "check", "--logs", LONG], "File name too long"),
        (["data", "make", "--out", f"{LONG}.jsonl"], "file name too long; expected a shorter name"),
        (["demo", "--out", "f/x"], "f/x: not a directory; expected a folder where a file is"),
        (["demo", "--out", "/proc/nothing"], "/proc/nothing: no such file or directory; expected a place"),
    ],
)
def test_a_place_that_the_system_refuses_is_one_line(
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("f").write_text("")
    assert main(words) in (1, 2)
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and len(error) < 700
    assert os.listdir(tmp_path) == ["f"]


def test_python_raises_an_error_that_names_the_place(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="File name too long") as found:
        tw.fit(tw.PPO(steps=64), "tiger", out=tmp_path / LONG, quiet=True)
    assert str(tmp_path / LONG) in found.value.filename


def test_a_connection_that_breaks_is_no_trouble_with_a_file() -> None:
    assert in_words(ConnectionResetError(104, "Connection reset by peer")) is None
    assert in_words(TimeoutError("no answer")) is None
    assert in_words(OSError(28, "No space left on device", "runs/x/result.json.part")) == (
        "runs/x/result.json: no space left on device; expected more room on its disk"
    )


@pytest.mark.parametrize("words", ["--help", "data check --logs {logs} --json", "data show --logs {logs}"])
def test_a_reader_that_has_had_enough_ends_it_quietly(words: str, logs: str) -> None:
    """As `| head` does, at once: no traceback, and the code of a program that a broken pipe ended."""
    read, write = os.pipe()
    os.close(read)
    typed = [w.format(logs=logs) for w in words.split()]
    process = subprocess.run(
        [sys.executable, "-m", "turnwise.cli", *typed], stdout=write, stderr=subprocess.PIPE, text=True
    )
    os.close(write)
    assert process.returncode == 141
    assert "Traceback" not in process.stderr and "Broken" not in process.stderr
