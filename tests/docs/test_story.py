"""The rules by which pages are run: what is a command, what is a file, and that nothing is passed over."""

from __future__ import annotations

from pathlib import Path

import pytest
from pages import Block, blocks_of
from story import Broken, Story, commands, stage


def page_of(folder: Path, text: str) -> Path:
    page = folder / "page.md"
    page.write_text(text)
    return page


def run(folder: Path, text: str) -> Path:
    """The folder in which a page of this text was run."""
    stage_folder = folder / "stage"
    stage_folder.mkdir()
    with stage(stage_folder):
        story = Story(stage_folder, {}, folder)
        for block in blocks_of(page_of(folder, text)):
            story.run_block(block)
    return stage_folder


def test_commands_go_on_after_a_backslash_and_end_at_a_comment():
    block = Block(
        Path("p.md"), 1, "sh", "", "# all of it\nturnwise a  --b \\\n    c   # why\nturnwise d '#1'\n"
    )
    assert commands(block) == ["turnwise a --b c", "turnwise d '#1'"]


def test_output_of_a_console_is_no_command():
    block = Block(Path("p.md"), 1, "console", "", "$ turnwise solve tiger\nturnwise found 2\n$ turnwise x\n")
    assert commands(block) == ["turnwise solve tiger", "turnwise x"]


def test_python_of_a_page_shares_names_and_files(tmp_path):
    folder = run(
        tmp_path,
        "```python twice.py\ndef twice(x):\n    return 2 * x\n```\n"
        "```python\nimport pathlib\nfrom twice import twice\n```\n"
        "text\n```python\npathlib.Path('four').write_text(str(twice(2)))\n```\n",
    )
    assert (folder / "four").read_text() == "4"


def test_a_file_that_a_page_shows_can_be_run(tmp_path):
    folder = run(
        tmp_path,
        "```python write.py\nimport pathlib\n\npathlib.Path('x').write_text(__name__)\n```\n"
        "```sh\npython write.py\n```\n",
    )
    assert (folder / "x").read_text() == "__main__"


def test_an_included_file_runs_and_can_be_imported(tmp_path):
    (tmp_path / "two.py").write_text("TWO = 2\n")
    folder = run(
        tmp_path,
        "```{literalinclude} two.py\n```\n"
        "```python\nimport pathlib\nfrom two import TWO\n\npathlib.Path(str(TWO)).touch()\n```\n",
    )
    assert (folder / "2").exists()


def test_output_is_compared(tmp_path):
    run(tmp_path, "```python\nprint(1 + 1)\n```\n```output\n2\n```\n")


@pytest.mark.parametrize(
    "text",
    [
        "```\nturnwise solve tiger\n```\n",
        "    turnwise solve tiger\n",
        "```bash\nturnwise solve tiger\n```\n",
        "```sh\ncurl example.org\n```\n",
        "```sh\nturnwise no-such-verb\n```\n",
        "```sh\nturnwise solve tiger | head\n```\n",
        "```json\n{1: 2}\n```\n",
        "```python\nprint(1 + 1)\n```\n```output\n3\n```\n",
        "```{figure} a.png\n```\n",
    ],
)
def test_what_cannot_run_fails(tmp_path, text):
    with pytest.raises((Broken, ValueError, SystemExit)):
        run(tmp_path, text)


def test_equal_beginnings_are_made_once(tmp_path):
    """Two pages that begin with the same file: the second goes on from the folder of the first."""
    snapshots = {}
    for name, text in (("first", "a"), ("second", "b")):
        folder = tmp_path / name
        folder.mkdir()
        with stage(folder):
            story = Story(folder, snapshots, tmp_path / "snapshots")
            for block in blocks_of(page_of(tmp_path, f"```text x\nsame\n```\n```text y\n{text}\n```\n")):
                story.run_block(block)
    assert len(snapshots) == 3
    assert [(tmp_path / n / "y").read_text() for n in ("first", "second")] == ["a\n", "b\n"]
