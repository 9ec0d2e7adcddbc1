"""The data card: what a set of logged conversations holds, and what in it could spoil training."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from turnwise.data.dataset import Dataset
from turnwise.data.dialogue import Dialogue, spoken
from turnwise.data.disk.buckets import distinct
from turnwise.data.disk.columns import BLOCK, Column
from turnwise.data.files.sources import name_of
from turnwise.data.rows import Cuts
from turnwise.data.splits.choices import Ratings, known_of
from turnwise.data.splits.heldout import Split
from turnwise.data.splits.twins import find_twins

BINS = 20
MANY_TRUNCATED = 0.2  # share of cut conversations above which bootstrapped values carry the result
MANY_TWINS = 0.01  # share of conversations with a twin above which it is said without being asked
_TOGETHER = "; twins stay on one side"
_LIKELY = (
    "reward",
    "return",
    "score",
    "success",
    "label",
    "rating",
    "resolved",
    "result",
    "csat",
    "nps",
    "grade",
)
_SAME = 1e-9  # returns closer than this share of their size differ by rounding alone


def data_card(
    dialogues: Sequence[Dialogue],
    *,
    file: str | None = None,
    lengths: Sequence[int] | Column | None = None,
    context: int | None = None,
    split: Split | None = None,
    cuts: Cuts | None = None,
) -> dict[str, Any]:
    """Counts and returns of `dialogues` as plain JSON values.

    `file`: what they were read from, if they are no `Logs`, which know it. `lengths`: tokens of each
    conversation; `context`: tokens that the model reads at most; without them `tokens` and `over_context` are
    None. `split`: which of them are kept from training. `cuts`: what was left out of them because it does not
    fit the context.
    `return` and `histogram` are of the `rated` conversations alone, and None if nobody said how any went;
    `missing_outcomes` ended without the outcome that others have. `return.low` and `return.high` are the 95%
    interval of the mean under the normal approximation, mean -+ 1.96 std / sqrt(n) with the n - 1 standard
    deviation, the mean itself for n = 1.
    """
    if not dialogues:
        raise ValueError("a card needs at least one conversation")
    if lengths is not None and len(lengths) != len(dialogues):
        raise ValueError(f"{len(lengths)} lengths for {len(dialogues)} conversations")
    said = None if lengths is None else Column.of(lengths)
    # One look at each, since conversations may be made anew each time that they are looked at.
    texts, hashes = Column(np.int64), array("q")
    keys, scored, acts_scored = set[str](), set[bool](), set[bool]()
    fewest, most = math.inf, 0
    turns = terminated = messages = 0
    for d in dialogues:
        spoke = d.turns
        turns, fewest, most = turns + len(spoke), min(fewest, len(spoke)), max(most, len(spoke))
        scored.update(m.behavior_logp is not None for m in spoke)
        acts_scored.update(m.act_logp is not None for m in spoke)
        hashes.append(hash(tuple([(m.role, spoken(m)) for m in d.messages])))
        if len(hashes) == BLOCK:
            texts.extend(np.array(hashes))
            del hashes[:]
        keys.update(d.metadata)
        terminated += d.terminated
        messages += len(d.messages)
    texts.extend(np.array(hashes))
    ratings = Ratings.of(dialogues)
    returns = Column.joined((k.returns[~ratings.unrated(k)] for k in known_of(dialogues)), np.float64)
    return {
        "file": file or name_of(dialogues),
        "conversations": len(dialogues),
        "heldout": 0 if split is None else len(split.held),
        "twins": find_twins(dialogues).count if split is None else split.twins,
        "across": 0 if split is None else split.across,
        "outcomes": 0 if split is None else split.outcomes,
        "agent_turns": {"mean": turns / len(dialogues), "min": fewest, "max": most},
        "messages": messages,
        "tokens": None if said is None else _tokens(said),
        "rated": len(returns),
        "missing_outcomes": ratings.missing,
        "return": _returns(returns) if len(returns) else None,
        "histogram": _histogram(returns) if len(returns) else None,
        "terminated": terminated,
        "truncated": len(dialogues) - terminated,
        "propensities": _how_many(scored),
        "act_propensities": _how_many(acts_scored),
        "metadata_keys": sorted(keys),
        "duplicates": len(dialogues) - distinct(texts),
        "over_context": None if said is None or context is None else said.above(context),
        "reading": dialogues.reading.notes() if isinstance(dialogues, Dataset) else [],
        "context": context,
        "cut": None if cuts is None else asdict(cuts),
    }


def _how_many(found: set[bool]) -> str:
    return "all" if all(found) else "some" if any(found) else "none"


def _unscored(dialogues: Sequence[Dialogue], name: str) -> str:
    """How many messages lack a log-probability that others have, and the first conversation with one."""
    total = without = 0
    first = ""
    for d in dialogues:
        missing = sum(getattr(m, name) is None for m in d.turns)
        total, without = total + len(d.turns), without + missing
        first = first or (d.id if missing else "")
    at = f" (first in conversation {first})" if first else ""
    return (
        f"{without:,} of the agent's {total:,} messages have no {name}{at}: estimates that need it can use "
        "none of their conversations."
    )


def _tokens(lengths: Column) -> dict[str, Any]:
    total = lengths.sum()
    return {"mean": total / len(lengths), "max": lengths.max(), "total": total}


def _returns(returns: Column) -> dict[str, Any]:
    n = len(returns)
    mean = math.fsum(returns) / n
    squares = math.fsum((x - mean) ** 2 for x in returns)
    std = math.sqrt(squares / (n - 1)) if n > 1 else 0.0
    margin = 1.96 * std / math.sqrt(n)
    lowest, highest = _range(returns)
    return {
        **{"mean": mean, "std": std, "min": lowest, "max": highest},
        **{"low": mean - margin, "high": mean + margin},
    }


def _range(returns: Column) -> tuple[float, float]:
    ends = [(float(block.min()), float(block.max())) for block in returns.blocks()]
    return min(low for low, _ in ends), max(high for _, high in ends)


def _histogram(returns: Column) -> dict[str, list]:
    low, high = _range(returns)
    if _equal(low, high):  # bins as narrow as rounding errors cannot be told apart
        half = max(0.5, abs(low) * 1e-3)
        return {"edges": [low - half, low + half], "counts": [len(returns)]}
    edges = np.histogram_bin_edges(np.zeros(0), bins=BINS, range=(low, high))
    counts = sum(np.histogram(block, bins=BINS, range=(low, high))[0] for block in returns.blocks())
    return {"edges": edges.tolist(), "counts": np.asarray(counts).tolist()}


def _equal(low: float, high: float) -> bool:
    return high - low <= _SAME * max(1.0, abs(low), abs(high))


def describe(card: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A card in people's words, one (label, value) a line, for terminals and report pages."""
    n, turns, tokens = card["conversations"], card["agent_turns"], card["tokens"]
    heldout = f", {card['heldout']:,} of them held out" if card["heldout"] else ""
    keys, over = card["metadata_keys"], card["over_context"]
    propensities = {"all": "on every message", "some": "on some messages", "none": "on no message"}
    lines = [
        ("File", card["file"]),
        ("Conversations", f"{n:,}{heldout}"),
        ("Agent's turns", f"{plural(turns['mean'], 'turn')} on average ({turns['min']} to {turns['max']})"),
        ("Messages", f"{card['messages']:,} of all roles"),
    ]
    if tokens:
        mean, longest = plural(tokens["mean"], "token"), f"{tokens['max']:,}"
        lines.append(("Length", f"{mean} on average, {longest} at most, {tokens['total']:,} in all"))
    lines += [
        ("Return", _describe_return(card)),
        ("Ends", f"{card['terminated']:,} at a true end, {card['truncated']:,} cut off"),
        ("Behaviour propensities", f"{propensities[card['propensities']]} of the agent"),
        ("Metadata", ", ".join(keys) if keys else "none"),
        ("Duplicates", f"{plural(card['duplicates'], 'conversation')} with the words of an earlier one"),
    ]
    if split := _split_in_words(card):
        lines.append(("Held-out split", split))
    if over:
        lines.append(("Over the context", f"{plural(over, 'conversation')}, chained into segments"))
    if (cut := card.get("cut")) and cut["tokens"]:
        share = cut["tokens"] / tokens["total"] if tokens else 0.0
        lost = f"{plural(cut['tokens'], 'token')} ({share:.1%}) of {plural(cut['messages'], 'message')}"
        lines.append(("Not read", f"{lost} in {plural(cut['conversations'], 'conversation')}"))
    return [*lines, *describe_reading(card)]


def _describe_return(card: Mapping[str, Any]) -> str:
    returns, rated = card["return"], card.get("rated", card["conversations"])
    if returns is None:
        return "unknown: no conversation has an outcome or a reward"
    spread = f"from {short_figure(returns['min'])} to {short_figure(returns['max'])}"
    interval = f"95% interval {short_figure(returns['low'])} to {short_figure(returns['high'])}"
    few = f"; of the {rated:,} that have one" if rated < card["conversations"] else ""
    return f"{short_figure(returns['mean'])} on average ({interval}), {spread}{few}"


def describe_reading(card: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was left out of the data and how they were understood, if that is not plain."""
    return [("Reading" if i == 0 else "", note) for i, note in enumerate(card.get("reading", ()))]


def _split_in_words(card: Mapping[str, Any]) -> str:
    """What was seen to when conversations were held out."""
    parts = []
    if card.get("twins"):
        twins = plural(card["twins"], "conversation")
        parts.append(f"{twins} have a twin (the same messages, whoever says them)")
        across = card.get("across")
        parts[0] += f"; {across:,} held-out ones have theirs among those learnt from" if across else _TOGETHER
    if card.get("outcomes"):
        parts.append(f"each of {card['outcomes']} outcomes is held out in its share")
    return "; ".join(parts)


def _of_cuts(card: Mapping[str, Any]) -> list[str]:
    """What does not fit the model's context."""
    n, cut, context = card["conversations"], card.get("cut"), card.get("context")
    if not cut or context is None:
        return []
    found = []
    if cut["tokens"]:
        messages, talks = plural(cut["messages"], "message"), plural(cut["conversations"], "conversation")
        found.append(
            f"{messages} of {talks} lose {plural(cut['tokens'], 'token')}: more than half of the context of "
            f"{context:,} tokens stands before a turn of the agent. The first words of older messages are "
            "not read, nor the last ones of a system message."
        )
    if cut["openings"]:
        found.append(
            f"{_share(cut['openings'], n)} say more before the agent's first turn than the context of "
            f"{context:,} tokens holds: without a larger one, a policy is never asked that in full."
        )
    if cut["systems"]:
        found.append(
            f"{_share(cut['systems'], n)} are read in several parts, and the later parts begin with the "
            f"first {context // 4:,} tokens of a longer system message."
        )
    return found


def warnings(card: Mapping[str, Any], dialogues: Sequence[Dialogue]) -> list[str]:
    """What could spoil training, one sentence each; none of it is an error."""
    n, returns, cut = card["conversations"], card["return"], card["truncated"]
    found = []
    likely = [k for k in card["metadata_keys"] if k.lower() in _LIKELY]
    if returns is None:
        found.append("No outcome and no reward anywhere: only cloning learns from such conversations.")
        if likely:
            found[-1] += f" The column {likely[0]!r} is kept as metadata; is it the outcome (outcome_column)?"
    elif all(not m.reward for d in dialogues for m in d.turns):
        found.append("Every outcome and every reward is 0: values have no better and worse to learn from.")
        if likely:
            found[-1] += f" The column {likely[0]!r} is kept as metadata; is it the outcome (outcome_column)?"
    elif card["rated"] > 1 and _equal(returns["min"], returns["max"]):
        same = short_figure(returns["mean"])
        found.append(f"Every conversation returns {same}: values have no better and worse to learn from.")
    if card["missing_outcomes"]:
        found.append(
            f"{_share(card['missing_outcomes'], n)} ended without an outcome, which is not 0: what learns "
            "from outcomes asks what becomes of them (missing_outcome: leave-out, or a number)."
        )
    if cut > MANY_TRUNCATED * n:
        found.append(
            f"{_share(cut, n)} were cut before their end: what they would have been worth is "
            "estimated, not observed."
        )
    for key, name in (("propensities", "behavior_logp"), ("act_propensities", "act_logp")):
        if card[key] == "some":
            found.append(_unscored(dialogues, name))
    found += _of_cuts(card)
    if card["duplicates"]:
        found.append(
            f"{_share(card['duplicates'], n)} repeat an earlier one word for word: they count double."
        )
    if card["across"]:
        found.append(
            f"{card['across']:,} of {plural(card['heldout'], 'held-out conversation')} have a twin (the same "
            "messages, whoever says them) among those learnt from: held-out figures look better than they "
            "are."
        )
    elif (card["twins"] or 0) >= MANY_TWINS * n:
        found.append(
            f"{_share(card['twins'], n)} have a twin (the same messages, whoever says them): twins stay on "
            "one side of the held-out split."
        )
    return found


def _share(count: int, n: int) -> str:
    percent = 100 * count / n
    shown = "under 1" if percent < 1 else f"{percent:.0f}"
    return f"{count:,} of {plural(n, 'conversation')} ({shown}%)"


def plural(count: float, word: str) -> str:
    """A count with its word: 1 turn, 2 turns."""
    return f"{short_figure(count)} {word}{'' if count == 1 else 's'}"


def short_figure(value: float) -> str:
    """At most three decimals, and none that are zero: 5, 0.314, 12,345.5."""
    if value and (abs(value) < 5e-4 or abs(value) >= 1e9):
        return f"{value:.3g}"
    text = f"{value:,.3f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
