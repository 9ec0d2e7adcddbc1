"""What was learnt, as the terminal shows it: a critic, a plan, acts, replies before and after, a judge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from turnwise.cli.say import interval
from turnwise.run import outwards

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


def print_plan(result: Mapping[str, Any], out: Console) -> None:
    """What was learnt, and what the plan is worth in models, beside what the logs earned."""
    if "worth" not in result:
        return
    out.print(f"{result['states']} hidden states, smoothing {result['smoothing']:g}")
    for line in result["worth"]:
        out.print(f"{line['role']:>9}: {interval(line)}  {line['name']}", markup=False)
    b = result["bounds"]
    ends = f"{outwards.lower(b['lower'], 4)} to {outwards.upper(b['upper'], 4)}"
    out.print(f"   bounds: {ends} in the model that was planned in", markup=False)


def in_acts(found: Mapping[str, Any]) -> str:
    """One side's codebook in a line."""
    words = f"{found['acts']} acts of {found['messages']:,} messages ({found['way']})"
    for key, told in found.get("told", {}).items():
        words += f"; {told['mean']:.3f} bits of the {key} ({told['low']:.3f} to {told['high']:.3f}, 95%)"
    if found.get("agreement"):
        words += f"; agreement with half of the logs {found['agreement'][0]:.2f}"
    if found.get("labels") is not None:
        words += f"; with the log's own acts {found['labels']:.2f}"
    return words


def print_replies(measured: Mapping[str, Any], out: Console) -> None:
    """What the policy says, before and after, and what it is worth."""
    for name in (x for x in ("before", "after", "gained") if x in measured):
        m = measured[name]
        words = [f"{key} {interval(m[key])}" for key in m if key == "gold" or key.startswith("reward")]
        if name != "gained":
            words += [f"KL {interval(m['kl'], '.2f')} nats a reply", f"{interval(m['length'], '.1f')} tokens"]
            words.append(f"{interval(m['unfinished'], '.0%')} cut off")
        if words:
            out.print(f"{name:>7}: {'  '.join(words)}", markup=False)
    examples = [measured.get(name, {}).get("examples", []) for name in ("before", "after")]
    for old, new in zip(*examples, strict=False):
        for name, text in (("prompt", old["prompt"]), ("before", old["reply"]), ("after", new["reply"])):
            out.print(f"{name:>9}: {_line(text)}", markup=False)


def _line(text: str, most: int = 90) -> str:
    """The beginning of a text, on one line, without what a terminal would obey."""
    from turnwise.run.terminal import visible

    plain = visible(" ".join(text.split()))
    return plain if len(plain) <= most else f"{plain[: most - 3]}..."


def in_words(quality: Mapping[str, Any]) -> str:
    """What was measured on held-out items, for people, beside what needs no model."""
    from turnwise.evaluation.pages.reward_models import part_in_words

    words = ""
    if quality.get("auc"):
        auc = quality["auc"]
        words += f"  held-out AUC {part_in_words(quality, auc['mean'])}{_ends(auc, '.1%')}"
    elif "accuracy" in quality:
        found = part_in_words(quality, quality["accuracy"])
        words += f"  held-out accuracy {found}{_ends(quality, '.1%')}"
    if "rule" in quality:
        by_rule = part_in_words(quality, quality["rules"][quality["rule"]])
        words += f"  the {quality['rule']} reply: {by_rule}"
    if quality.get("words") and "rmse" not in quality:
        words += f"  a bag of words: {part_in_words(quality, quality['words']['mean'])}"
    if quality.get("tau") is not None:
        words += f"  tau {quality['tau']:.3f}"
    if "rmse" in quality:
        words += f"  held-out RMSE {quality['rmse']:.3f}{_ends(quality, '.3f')}"
        words += f"  R2 {quality['r2']:.3f}" if quality["r2"] is not None else ""
    return words


def _ends(found: Mapping[str, Any], form: str) -> str:
    return f" ({found['low']:{form}} to {found['high']:{form}}, 95%)" if found.get("low") is not None else ""
