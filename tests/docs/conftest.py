"""Makes the files beside it importable, and what docs/conf.py imports; a folder for each page."""

import io
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "docs")]


@pytest.fixture(scope="session")
def snapshots(tmp_path_factory):
    """Folders that commands made, by the commands; and where they are kept."""
    return {}, tmp_path_factory.mktemp("snapshots")


@pytest.fixture
def run_page(tmp_path, snapshots, monkeypatch, unchecked):
    """Run a page in a folder of its own, as a rehearsal."""
    from story import Story, stage

    def run(page: Path) -> None:
        monkeypatch.setenv("TURNWISE_REHEARSAL", "1")
        monkeypatch.setattr("sys.stdin", io.StringIO("My screen is black.\n"))  # what a reader may type
        with stage(tmp_path):
            Story(tmp_path, *snapshots).run(page)

    return run
