"""What a critic knows, as the terminal shows it: figures beside a regression on words, and what follows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

_PLACES = (("first", "first turn"), ("last", "last turn"), ("all", "all turns"))


def print_critic(found: Mapping[str, Any], out: Console) -> None:
    """The table of held-out figures, if there are enough conversations, and the sentence."""
    if "q" in found:
        from rich import box
        from rich.table import Table

        title = f"critic on {found['heldout']:,} held-out conversations (95% intervals; a constant has R² 0)"
        table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="")
        heads = ("R²", "R² calibrated", "rank correlation", "R² of words")
        table.add_column("value")
        for head in heads:
            table.add_column(head, justify="right")
        for name in ("v", "q"):
            for place, words in _PLACES:
                entry = found[name][place]
                own = [entry["critic"][k] for k in ("r2", "calibrated_r2", "spearman")]
                cells = [_cell(x) for x in (*own, entry["words"]["r2"])]
                table.add_row(f"{name.upper()}, {words}", *cells)
        out.print(table)
    out.print(found["sentence"], markup=False)
    if found.get("shift"):
        out.print(found["shift"]["sentence"], markup=False)


def _cell(x: Mapping[str, float] | None) -> str:
    return "" if x is None else f"{x['value']:.2f} ({x['low']:.2f} to {x['high']:.2f})"
