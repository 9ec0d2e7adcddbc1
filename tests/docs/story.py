"""Runs what is printed on a page: its commands, files and Python in order, in one folder, as one story.

A fence says what its block is:

    sh              commands, one a line, `\\` at the end goes on, `#` begins a comment: each must succeed
    console         the same behind `$ `; other lines are output, which varies by machine and is not compared
    python          statements; those of a page share their names
    output          what the Python block above it prints, to the letter
    LANGUAGE NAME   a file, written under that name into the folder (`python judges.py`, `json prompts.jsonl`)
    json            an example that must be JSON: one value, or one a line
    text            a formula, a tree, pseudocode: nothing to run
    {directive}     of the site; `{literalinclude}` names a file that runs as it stands

Everything else fails: a block without a language, a command that nobody here knows how to run. Runs are
rehearsals (TURNWISE_REHEARSAL=1). Commands run in this process, since imports take seconds; `torchrun` alone
starts its own. A page that begins with the same commands as an earlier one goes on from a copy of the folder
that they made.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from pages import ROOT, Block, blocks_of

from turnwise.cli import main

SET_UP = {
    "git clone <this repository> && cd turnwise": "needs the address that the reader has",
    "make demo": "sets up .venv from the package index; tests/cli has the demo",
    "make test": "is what runs this",
    "source .venv/bin/activate": "whoever runs this has done so, or need not",
}
"""lines that are not run, comments taken off, and why"""

DIRECTIVES = ("{toctree}",)
"""blocks that only the site reads"""


class Broken(Exception):
    """What is printed on the page does not work."""


class Story:
    """One page in a folder of its own."""

    def __init__(self, folder: Path, snapshots: dict[tuple[str, ...], Path], snapshots_folder: Path) -> None:
        self.folder = folder
        self.names: dict[str, object] = {"__name__": "__page__"}
        self.printed = ""
        self.steps: tuple[str, ...] | None = ()
        """what made the folder, step by step; None once Python ran, whose names cannot be copied"""
        self.snapshots, self.snapshots_folder = snapshots, snapshots_folder

    def run(self, page: Path) -> None:
        """Run every block of a page; the first that does not work raises with its place."""
        for block in blocks_of(page):
            try:
                self.run_block(block)
            except (Exception, SystemExit) as error:
                raise Broken(f"{block.place}: {type(error).__name__}: {error}") from error

    def run_block(self, block: Block) -> None:
        """Run one block as its language says."""
        if block.language == "{literalinclude}":
            self.steps = None
            # A copy, so that what follows on the page can import it, as a reader beside the file can.
            copy = shutil.copy((block.page.parent / block.argument).resolve(), self.folder)
            runpy.run_path(str(copy), run_name="__main__")
        elif block.language.startswith("{"):
            if block.language not in DIRECTIVES:
                raise Broken(f"there is no way to run the directive {block.language}")
        elif block.argument:
            self.step(f"{block.argument}\n{block.text}", lambda: self.write(block.argument, block.text))
        elif block.language in ("sh", "console"):
            for line in commands(block):
                self.command(line)
        elif block.language == "python":
            self.python(block)
        elif block.language == "output":
            if self.printed != block.text:
                raise Broken(f"printed is\n{self.printed}")
        elif block.language == "json":
            check_json(block.text)
        elif block.language != "text":
            raise Broken(f"a block of language {block.language!r}; tests/docs/story.py has those there are")

    def write(self, name: str, text: str) -> None:
        """A file that the page shows."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def python(self, block: Block) -> None:
        """Statements, with the page's own line numbers in tracebacks; what they print is kept."""
        self.steps = None
        code = compile("\n" * (block.line - 1) + block.text, str(block.page), "exec")
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(code, self.names)
        self.printed = out.getvalue()

    def command(self, line: str) -> None:
        """One command of a shell."""
        if line in SET_UP:
            return
        words = shlex.split(line)
        if words[0] == "turnwise":
            self.step(line, lambda: succeed(words[1:]))
        elif words[0] == "torchrun":
            # The script lies beside the interpreter; a virtual environment need not be active.
            self.step(line, lambda: run_process([str(Path(sys.executable).parent / words[0]), *words[1:]]))
        elif words[0] == "python" and words[1].endswith(".py"):
            self.steps = None
            runpy.run_path(words[1], run_name="__main__")
        elif words[0] == "xdg-open":
            # Nobody looks here, but what a reader is told to open has to be there.
            if not (self.folder / words[1]).is_file():
                raise Broken(f"{words[1]} is not there")
        else:
            raise Broken(f"there is no way to run `{line}`")

    def step(self, what: str, do) -> None:
        """Do a step that only changes the folder, or take the folder that the same steps made before."""
        if self.steps is None:
            do()
            return
        self.steps = (*self.steps, what)
        if self.steps in self.snapshots:
            shutil.copytree(self.snapshots[self.steps], self.folder, dirs_exist_ok=True)
            return
        do()
        kept = self.snapshots_folder / str(len(self.snapshots))
        shutil.copytree(self.folder, kept)
        self.snapshots[self.steps] = kept


def commands(block: Block) -> list[str]:
    """Lines of a shell: joined where they go on, without comments and, of a console, without output."""
    lines = block.text.replace("\\\n", " ").splitlines()
    if block.language == "console":
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    return [bare for line in lines if (bare := " ".join(without_comment(line).split()))]


def without_comment(line: str) -> str:
    """A `#` after a space, outside of quotes, begins a comment."""
    for i, letter in enumerate(line):
        quotes = line[:i].count('"') % 2 or line[:i].count("'") % 2
        if letter == "#" and not quotes and (i == 0 or line[i - 1].isspace()):
            return line[:i]
    return line


def succeed(words: list[str]) -> None:
    """Run `turnwise` with these words here."""
    code = main(words)
    if code:
        raise Broken(f"turnwise {shlex.join(words)} ended with code {code}")


def run_process(words: list[str]) -> None:
    """Run a command in a process of its own, with the library as it is here."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=240)
    if done.returncode:
        raise Broken(f"{shlex.join(words)} ended with code {done.returncode}\n{done.stdout}{done.stderr}")


def check_json(text: str) -> None:
    """One JSON value, or one a line."""
    try:
        json.loads(text)
    except json.JSONDecodeError:
        for line in text.splitlines():
            json.loads(line)


@contextlib.contextmanager
def stage(folder: Path) -> Iterator[None]:
    """Work in a folder, import from it, and forget its modules afterwards: the next page has its own."""
    here, path, modules = Path.cwd(), list(sys.path), set(sys.modules)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        os.chdir(here)
        sys.path[:] = path
        for name in set(sys.modules) - modules:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)):
                del sys.modules[name]
