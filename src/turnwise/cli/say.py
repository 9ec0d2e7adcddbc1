"""What verbs print for people: on stdout, or on stderr when stdout belongs to --json."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from rich import box
from rich.console import Console
from rich.table import Table

from turnwise.cli.ranges import expect_in_range
from turnwise.run.errors import InputError

A = TypeVar("A")


def console(json: bool) -> Console:
    """Where people read."""
    out = Console(stderr=json, highlight=False, soft_wrap=True)
    return out if out.is_terminal else Console(stderr=json, highlight=False, soft_wrap=True, width=120)


def parse(kind: type[A], args: Sequence[str], prog: str, about: str) -> A:
    """Options into the dataclass `kind`, without prefixes; wrong ones exit with 2, numbers too."""
    import tyro

    asked = tyro.cli(
        kind,
        args=list(args),
        prog=f"turnwise {prog}",
        description=about,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
    )
    expect_in_range(asked)
    return asked


def comparison_table(comparison: Mapping[str, Any]) -> Table:
    """The rows and references of a comparison, best last line first, as in the report."""
    table = Table(box=box.SIMPLE_HEAD, title=None)
    table.add_column("policy")
    for name in (comparison["score"], "95% interval", "success", "turns", "conversations"):
        table.add_column(name, justify="right")
    entries = [*comparison["references"], *comparison["rows"]]
    for row in sorted(entries, key=lambda r: -r["mean"]):
        known = row in comparison["references"]
        interval = f"{row['low']:.3f} to {row['high']:.3f}" if row.get("low") is not None else ""
        table.add_row(
            row["name"],
            f"{row['mean']:.4f}" if not interval else f"{row['mean']:.3f}",
            interval,
            f"{row['success']:.0%}" if row.get("success") is not None else "",
            f"{row['turns']:.1f}" if row.get("turns") is not None else "",
            f"{row['episodes']:,}" if row.get("episodes") else "",
            style="dim" if known else None,
        )
    return table


@contextlib.contextmanager
def as_input_errors(option: str) -> Any:
    """Values that a dataclass refuses are the user's to mend."""
    try:
        yield
    except ValueError as e:
        raise InputError(f"{option}: {e}") from e


def notice(text: str) -> None:
    """One line about what is being done, for people."""
    sys.stderr.write(f"{text}\n")  # at once: threads would write between the words and the line's end
    sys.stderr.flush()
