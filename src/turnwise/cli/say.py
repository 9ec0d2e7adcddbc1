"""What verbs parse, and what they print for people: on stdout, or on stderr if stdout belongs to --json."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from turnwise.run import outwards, terminal
from turnwise.run.errors import SettingError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

A = TypeVar("A")


def console(json: bool) -> Console:
    """Where people read. Text is plain: `styled` gives what is to stand out."""
    out = terminal.console(stderr=json, soft_wrap=True)
    return out if out.is_terminal else terminal.console(stderr=json, soft_wrap=True, width=120)


def styled(form: str, *values: object) -> Text:
    """`form` with its markup as style, and `values` in place of its {}: text, whatever is in them."""
    from rich.markup import escape
    from rich.text import Text

    return Text.from_markup(form.format(*(escape(terminal.visible(str(x))) for x in values)), emoji=False)


def against_proof(result: dict[str, Any], fault: str) -> list[Text]:
    """What is not known of the best, and a mean that contradicts what is proved: then the exit code is 1.

    `fault`: what may be wrong then, "a fault of environment, bound or evaluation".
    """
    from turnwise.recipes.measuring.proved import ERRORS

    lines = [styled("  [dim]not known: {}[/dim]", note) for note in result["truth"]["notes"]]
    form = "[red]impossible[/red]: the mean {}, by more than {} standard errors: {}"
    if result["above"]:
        what = f"exceeds {outwards.upper(result['bound'])}, which no policy exceeds"
        lines.append(styled(form, what, f"{ERRORS:g}", fault))
    if result.get("below"):
        least = outwards.lower(result["value"]["lower"])
        what = f"is below {least}, which the policy is proved to earn"
        lines.append(styled(form, what, f"{ERRORS:g}", fault))
    if result["above"] or result.get("below"):
        result["exit"] = 1
    return lines


def parse(kind: type[A], args: Sequence[str], prog: str, about: str, alone: str | Sequence[str] = ()) -> A:
    """Options into the dataclass `kind`, without prefixes. What is wrong with one exits with 2.

    `alone`: the field, or the fields in order, that words without a flag are for, so that a path may be typed
    by itself. A flag that takes several values may be repeated. SettingError for a number that its setting
    does not take.
    """
    import tyro

    from turnwise.cli.help import add_help
    from turnwise.cli.words import split_words, with_path

    if alone:
        names = [alone] if isinstance(alone, str) else list(alone)
        args, prog = with_path(kind, args, *names), " ".join([prog, *(f"[{name.upper()}]" for name in names)])
    elif not (found := split_words(kind, args)).alone:
        args = found.rest

    add_help(kind)

    def parsed() -> A:
        return tyro.cli(
            kind,
            args=list(args),
            prog=f"turnwise {prog}",
            description=about,
            config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
        )

    if {"-h", "--help"} & set(args):
        return parsed()
    try:
        # The parser catches what a dataclass refuses, and says it in words of its own before it exits. They
        # are swallowed here; ours name the flag.
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            return parsed()
    except SystemExit as end:
        error: BaseException | None = end
        while error is not None:
            if isinstance(error, SettingError):
                raise error from None
            error = error.__context__
    return parsed()


def comparison_table(comparison: Mapping[str, Any]) -> Table:
    """The rows and references of a comparison, the best first, as in the report."""
    from rich import box
    from rich.table import Table

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


def notice(text: str) -> None:
    """One line about what is being done, for people."""
    terminal.say(text)


def interval(found: Mapping[str, Any], form: str = ".3f") -> str:
    """`mean (low to high)`; the mean alone if nothing is known of its spread."""
    mean = f"{found['mean']:{form}}"
    return mean if found.get("low") is None else f"{mean} ({found['low']:{form}} to {found['high']:{form}})"


class Bounds:
    """Bounds as they close in, on stderr, after 2 s: a live line in a terminal, else a line now and then."""

    def __init__(self, deadline: float):
        self.deadline, self.next, self.live = deadline, 2.0, sys.stderr.isatty()
        self.shown = False

    def __enter__(self) -> Bounds:
        return self

    def __exit__(self, *_: object) -> None:
        if self.shown and self.live:
            print(file=sys.stderr)

    def at(self, seconds: float, lower: float, upper: float) -> None:
        """Called about ten times a second."""
        if seconds < self.next:
            return
        self.next = seconds + (0.2 if self.live else 15.0)
        left = max(0.0, self.deadline - seconds)
        ends, gap = (outwards.lower(lower), outwards.upper(upper)), outwards.upper(upper - lower, 3)
        text = f"{ends[0]} to {ends[1]}  gap {gap}  {left:.0f} s left at most"
        print(
            f"\r\x1b[K{text}" if self.live else text,
            end="" if self.live else "\n",
            file=sys.stderr,
            flush=True,
        )
        self.shown = True
