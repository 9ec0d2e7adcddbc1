"""Settings of the documentation site: `make docs` writes it to build/docs, without a network."""

import re
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "src")]

from public_names import reference  # noqa: E402

project = "Turnwise"
html_title = "Turnwise"
extensions = ["myst_parser"]
html_theme = "furo"
# The repository is the source folder, so that a link to README.md or to a table in experiments/ is the same
# link on the site and in a checkout.
root_doc = "docs/index"
include_patterns = ["*.md", "docs/**.md", "experiments/*.md", "benchmarks/*.md"]
exclude_patterns = [".venv", "build", "src", "tests"]
myst_heading_anchors = 4
highlight_language = "text"
html_copy_source = False
html_show_copyright = False

FILE = re.compile(r"^```(\w+) (\S+\.\w+)$", re.MULTILINE)
"""a fenced block that is a whole file: its language and the file's name"""
PUBLIC_NAMES = re.compile(r"^<!-- names of (\S+) -->$", re.MULTILINE)
"""where the reference of a module's public names belongs"""


def prepare(app, docname: str, source: list[str]) -> None:
    """Add what only the site has: captions of files, references at their marks, titles of bare tables."""
    text = FILE.sub(r"```{code-block} \1\n:caption: \2\n", source[0])
    text = PUBLIC_NAMES.sub(lambda mark: reference(mark[1]), text)
    if docname.startswith("experiments/") and not text.startswith("# "):
        text = f"# {docname.removeprefix('experiments/').replace('_', ' ').capitalize()}\n\n{text}"
    source[0] = text


def begin_at_the_root(app, exception: Exception | None) -> None:
    """A browser that opens build/docs finds the first page."""
    if exception is None:
        refresh = '<meta http-equiv="refresh" content="0; url=docs/index.html">'
        (Path(app.outdir) / "index.html").write_text(f"<!doctype html>{refresh}<title>Turnwise</title>\n")


def setup(app) -> None:
    """Called by Sphinx."""
    app.connect("source-read", prepare)
    app.connect("build-finished", begin_at_the_root)
