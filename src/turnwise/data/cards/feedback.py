"""The data card of feedback: counts, lengths, who judged, how far the judges agree, what could mislead."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from turnwise.data.cards.agreement import agreeing, interval_alpha, nominal_alpha
from turnwise.data.cards.length import compared, longer_wins
from turnwise.data.cards.logs import describe_reading, plural, short_figure
from turnwise.data.feedback import Feedback, Like, Pair, Ranking, Score, kind_of

LOPSIDED = 0.1  # the longer reply's share of wins is so far from a half when it is worth a warning
LITTLE_AGREEMENT = 0.2  # alpha below which judgements are nearly noise
MOST = 0.6  # share of judgements by one annotator above which a warning names them
FEW = 20  # items and judgements below which a share says nothing

Item = tuple[Any, ...]
"""What was judged: the prompt and one reply, or two replies in alphabetical order."""


def feedback_card(items: Sequence[Feedback]) -> dict[str, Any]:
    """Counts of `items`, all of one kind, as plain JSON values; `docs/how-to/feedback.md` has every key.

    A ranking counts as the comparisons of its replies two by two wherever two replies are compared.
    """
    if not items:
        raise ValueError("a card needs at least one item")
    kinds = {kind_of(item) for item in items}
    if len(kinds) > 1:
        raise ValueError(f"a card is of one kind; got {' and '.join(sorted(kinds))}")
    prompts = {_prompt(item) for item in items}
    messages = [len(prompt) for prompt in prompts]
    replies = [reply for item in items for reply in item.replies]
    rankings = [item for item in items if isinstance(item, Ranking)]
    pairs = [item for item in items if isinstance(item, Pair)]
    margins = [item.margin for item in pairs if item.margin is not None]
    likes = [item.liked for item in items if isinstance(item, Like)]
    scores = [item.score for item in items if isinstance(item, Score)]
    annotators = Counter(item.annotator for item in items if item.annotator is not None)
    return {
        "kind": kinds.pop(),
        "rows": len(items),
        "prompts": len(prompts),
        "prompt_messages": {**_spread(messages), "answered": sum(_answered(p) for p in prompts)},
        "replies": len(set(replies)),
        "reply_words": _words(replies),
        "ranked": _spread([len(item.replies) for item in rankings]) if rankings else None,
        "ties": sum(_tied(item) for item in items) if pairs or rankings else None,
        "margins": {"count": len(margins), "negative": sum(m < 0 for m in margins)} if pairs else None,
        "likes": {"count": sum(likes), "share": sum(likes) / len(likes)} if likes else None,
        "scores": _spread(scores) if scores else None,
        "longer_wins": longer_wins(items),
        "annotators": dict(annotators.most_common()),
        "unsigned": len(items) - annotators.total(),
        **_judgements(items),
        "metadata_keys": sorted({key for item in items for key in item.metadata}),
    }


def _prompt(item: Feedback) -> tuple[tuple[str, str], ...]:
    return tuple((m.role, m.content) for m in item.prompt)


def _answered(prompt: tuple[tuple[str, str], ...]) -> bool:
    return any(role == "assistant" for role, _ in prompt)


def _tied(item: Feedback) -> bool:
    return item.tie if isinstance(item, Pair) else len(set(getattr(item, "ranks", ()))) < len(item.replies)


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"mean": math.fsum(values) / len(values), "min": min(values), "max": max(values)}


def _words(replies: Sequence[str]) -> dict[str, float]:
    lengths = np.array([len(reply.split()) for reply in replies])
    most = np.quantile(lengths, 0.95, method="inverted_cdf")  # of some reply
    return {"median": float(np.median(lengths)), "q95": int(most), "max": int(lengths.max())}


# --- what was said of what ----------------------------------------------------------------------------


def _said(item: Feedback) -> list[tuple[Item, float]]:
    """Each thing judged and the judgement: 1 the first of two replies, -1 the second, 0 a tie; or a value."""
    prompt = _prompt(item)
    if isinstance(item, Like):
        return [((prompt, item.completion), float(item.liked))]
    if isinstance(item, Score):
        return [((prompt, item.completion), item.score)]
    found = []
    for a, b, value in compared(item):
        found.append(((prompt, a, b), value) if a < b else ((prompt, b, a), -value))
    return found


def _judgements(items: Sequence[Feedback]) -> dict[str, Any]:
    """Agreement, and what is said twice.

    The first judgement of a thing by an annotator counts; later ones tell how far the same person agrees
    with an earlier self.
    """
    said: dict[Item, dict[str, float]] = {}
    heard: dict[Item, set[float]] = {}
    rows: set[Any] = set()
    again = same = 0
    for item in items:
        judged = _said(item)
        for thing, value in judged:
            heard.setdefault(thing, set()).add(value)
            if item.annotator is not None:
                first = said.setdefault(thing, {})
                again += item.annotator in first
                same += item.annotator in first and first[item.annotator] == value
                first.setdefault(item.annotator, value)
        rows.add((_prompt(item), frozenset(judged), tuple(sorted(item.replies)), item.annotator))
    return {
        "agreement": _agreement([list(by.values()) for by in said.values()], items[0]),
        "repeated": {"count": again, "same": same},
        "contradicted": {"count": sum(len(values) > 1 for values in heard.values()), "of": len(heard)},
        "duplicates": len(items) - len(rows),
    }


# --- agreement ----------------------------------------------------------------------------------------


def _agreement(units: list[list[float]], kind: Feedback) -> dict[str, Any] | None:
    units = [unit for unit in units if len(unit) > 1]
    if not units:
        return None
    if isinstance(kind, Score):
        metric, alpha = "interval", interval_alpha(units)
    elif isinstance(kind, Like):
        metric, alpha = "nominal", nominal_alpha(units)
    else:  # which of two replies stands first must say nothing: each item both ways round
        metric, alpha = "nominal", nominal_alpha(units + [[-x for x in unit] for unit in units])
    share = math.fsum(agreeing(unit) for unit in units) / len(units)
    return {
        **{"items": len(units), "judgements": sum(map(len, units))},
        **{"share": share, "alpha": alpha, "metric": metric},
    }


# --- words --------------------------------------------------------------------------------------------


def describe_feedback(card: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A card in people's words, one (label, value) a line."""
    messages, words, turns = card["prompt_messages"], card["reply_words"], ""
    if messages["answered"]:
        turns = f"; {messages['answered']:,} with an earlier reply of the agent"
    length = f"{plural(messages['mean'], 'message')} on average ({messages['min']} to {messages['max']})"
    spread = f"{short_figure(words['median'])} in the middle, {short_figure(words['q95'])} at the 95% mark"
    lines = [
        ("Feedback", f"{card['rows']:,} {_kind(card)}"),
        ("Prompts", f"{card['prompts']:,} different, {length}{turns}"),
        ("Replies", f"{card['replies']:,} different"),
        ("Words of a reply", f"{spread}, {words['max']:,} at most"),
    ]
    if card["ranked"]:
        ranked = card["ranked"]
        replies = f"{short_figure(ranked['mean'])} on average ({ranked['min']} to {ranked['max']})"
        lines.append(("Replies of a ranking", replies))
    if card["likes"]:
        lines.append(("Liked", _share_in_words(card["likes"]["count"], card["rows"], ".0%")))
    if card["scores"]:
        mean, low, high = (short_figure(card["scores"][key]) for key in ("mean", "min", "max"))
        lines.append(("Score", f"{mean} on average, from {low} to {high}"))
    if card["ties"] is not None:
        lines.append(("Ties", f"{card['ties']:,}"))
    if card["margins"]:
        lines.append(("Margins", f"on {card['margins']['count']:,}" if card["margins"]["count"] else "none"))
    if card["longer_wins"]:
        longer, over = card["longer_wins"], "comparisons"
        if card["likes"]:
            over = "pairs of a liked and a disliked reply"
        told = f"{longer['count']:,} of {longer['of']:,} {over}"
        if _decided(card) >= FEW:
            told = f"{longer['share']:.1%} of {longer['of']:,} {over} (a coin: 50%)"
        lines.append(("The longer reply wins", told))
    return [*lines, *_describe_judges(card)]


def _share_in_words(count: int, of: int, form: str) -> str:
    """`300 (30%)`, or `2 of 3`: a share of so few would say nothing."""
    return f"{count:,} ({count / of:{form}})" if of >= FEW else f"{count:,} of {of:,}"


def _describe_judges(card: Mapping[str, Any]) -> list[tuple[str, str]]:
    named, unsigned = card["annotators"], card["unsigned"]
    judges = "unknown"
    if named:
        name, most = next(iter(named.items()))
        judges = f"{len(named):,}; the busiest, {ascii(name)[1:-1][:40]}, gave {most:,} of {card['rows']:,}"
        judges += f"; {unsigned:,} unsigned" if unsigned else ""
    lines = [("Annotators", judges)]
    if card["agreement"]:
        found = card["agreement"]
        alpha = "undefined" if found["alpha"] is None else f"{found['alpha']:.2f}"
        several = f"on {found['items']:,} {_things(card, found['items'])} judged by several"
        what = "two annotators give the same score" if card["kind"] == "scores" else "two annotators agree"
        agreed = f"{what} with probability {found['share']:.2f}"
        lines.append(("Agreement", f"{agreed} {several}; Krippendorff's alpha {alpha} ({found['metric']})"))
    repeated = card["repeated"]
    if repeated["count"]:
        lines.append(("Asked again", f"{repeated['same']:,} of {repeated['count']:,} times the same answer"))
    contradicted = card["contradicted"]
    if contradicted["count"]:
        told = f"{contradicted['count']:,} of {contradicted['of']:,} {_things(card)} judged in several ways"
        lines.append(("Contradictions", told))
    lines.append(("Duplicates", plural(card["duplicates"], "row") + " with nothing but an earlier one"))
    return [*lines, ("Metadata", ", ".join(card["metadata_keys"]) or "none"), *describe_reading(card)]


def feedback_warnings(card: Mapping[str, Any]) -> list[str]:
    """What could spoil training, one sentence each; none of it is an error."""
    rows, found = card["rows"], []
    longer = card["longer_wins"]
    if longer and _tells(longer["share"], _decided(card)):
        side, share = "longer", longer["share"]
        if share < 0.5:
            side, share = "shorter", 1 - share
        found.append(
            f"The {side} reply wins {share:.0%} of comparisons: a reward model is that good by counting "
            "characters; compare with replies of like length."
        )
    named = card["annotators"]
    signed = rows - card["unsigned"]
    if named and len(named) > 1 and max(named.values()) > MOST * signed:
        name, most = next(iter(named.items()))
        found.append(f"{ascii(name)[1:-1][:40]} gave {most / signed:.0%} of the signed judgements.")
    if named and not card["agreement"] and rows > 1:
        found.append("No two annotators judged the same: how far they agree is not known.")
    agreement = card["agreement"]
    if agreement and agreement["items"] >= FEW and (agreement["alpha"] or 0.0) < LITTLE_AGREEMENT:
        alpha = agreement["alpha"]
        if alpha is not None:
            found.append(f"Annotators agree little more than by chance (alpha {alpha:.2f}).")
    found += _warn_of_values(card)
    if not named and card["contradicted"]["count"]:
        told = f"{card['contradicted']['count']:,} of {card['contradicted']['of']:,} {_things(card)}"
        found.append(f"{told} got more than one judgement, and nobody signed: is that noise or taste?")
    if card["duplicates"]:
        found.append(
            f"{card['duplicates']:,} of {plural(rows, 'row')} with nothing but an earlier one: "
            "that counts double."
        )
    if card["prompts"] == 1 and rows > 1:
        found.append("All have the same prompt: none can be held out by prompt.")
    items = card.get("learnt", 0) + card.get("held_out", 0) + card.get("left_out", 0)
    return [*found, *context_warnings(card, items)]


def context_warnings(card: Mapping[str, Any], items: int) -> list[str]:
    """What the context of a model did to `items` pieces of feedback; nothing on a card without a model."""
    found = []
    if card.get("shortened"):
        found.append(
            f"{card['shortened']:,} of {items:,} items are longer than the context of {card['context']}: "
            "the earliest messages of their prompts are not read."
        )
    if card.get("left_out"):
        found.append(
            f"{card['left_out']:,} of {items:,} items are longer than the context of {card['context']} even "
            "with the last message of their prompt alone; left out."
        )
    return found


def _decided(card: Mapping[str, Any]) -> int:
    """What is known of length as if from so many comparisons: of likes, the replies of the rarer side."""
    likes = card["likes"]
    return min(likes["count"], card["rows"] - likes["count"]) if likes else card["longer_wins"]["of"]


def _tells(share: float, n: int) -> bool:
    """Whether a share is far from a half, and by more than 1.96 standard errors of a fair coin."""
    return abs(share - 0.5) >= max(LOPSIDED, 0.98 / math.sqrt(n))


def _warn_of_values(card: Mapping[str, Any]) -> list[str]:
    rows, likes, scores, margins, found = card["rows"], card["likes"], card["scores"], card["margins"], []
    if likes and likes["count"] in (0, rows) and rows > 1:
        found.append(
            f"Every reply is {'liked' if likes['count'] else 'disliked'}: there is nothing to tell apart."
        )
    elif likes and rows >= FEW and not 0.1 <= likes["share"] <= 0.9:
        found.append(f"{likes['share']:.0%} are liked: weigh the rarer side more.")
    if scores and scores["min"] == scores["max"] and rows > 1:
        found.append("Every score is the same: there is nothing to tell apart.")
    if card["ties"] is not None and card["ties"] > rows / 2:
        one = card["ties"] == 1
        verb = ("is a tie", "are ties") if card["kind"] == "pairs" else ("holds ties", "hold ties")
        found.append(f"{card['ties']:,} of {rows:,} {_kind(card)} {verb[0 if one else 1]}.")
    if margins and 0 < margins["count"] < rows - card["ties"]:
        found.append(f"Only {margins['count']:,} of {rows:,} pairs have a margin.")
    if margins and margins["negative"]:
        found.append(
            f"{plural(margins['negative'], 'margin')} below 0: is the rejected reply the better one?"
        )
    return found


def _kind(card: Mapping[str, Any]) -> str:
    return card["kind"][:-1] if card["rows"] == 1 else card["kind"]


def _things(card: Mapping[str, Any], count: int = 2) -> str:
    one, many = (
        ("comparison", "comparisons") if card["kind"] in ("pairs", "rankings") else ("reply", "replies")
    )
    return one if count == 1 else many
