"""Which replies win by their length alone: the rule that every judge of replies has to beat."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from turnwise.data.feedback import Feedback, Like, Pair, Ranking

Rule = Literal["longer", "shorter"]


def length_rule(items: Sequence[Feedback]) -> Rule:
    """Whether the longer or the shorter reply is preferred more often; the longer, if neither is."""
    found = longer_wins(items)
    return "shorter" if found and found["share"] < 0.5 else "longer"


def longer_wins(items: Sequence[Feedback]) -> dict[str, Any] | None:
    """How often the preferred reply has more characters, of comparisons without a tie or equal lengths.

    Pairs compare two replies, rankings all of theirs two by two, likes every liked reply with every disliked
    one, whatever their prompts. None if nothing is compared; scores are not.
    """
    if items and isinstance(items[0], Like):
        longer, shorter, equal = _of_likes([item for item in items if isinstance(item, Like)])
    else:
        longer = shorter = equal = 0
        for item in items:
            for a, b, value in compared(item) if isinstance(item, Pair | Ranking) else []:
                difference = (len(a) - len(b)) * value
                longer += difference > 0
                shorter += difference < 0
                equal += value != 0 and difference == 0
    if not longer + shorter:
        return None
    share = longer / (longer + shorter)
    return {"count": longer, "of": longer + shorter, "share": share, "equal_length": equal}


def compared(item: Pair | Ranking) -> list[tuple[str, str, int]]:
    """Two different replies and 1 if the first is preferred, -1 if the second is, 0 in a tie."""
    if isinstance(item, Pair):
        return [(item.chosen, item.rejected, 0 if item.tie else 1)] if item.chosen != item.rejected else []
    ranked = zip(item.replies, item.ranks, strict=True)
    two = itertools.combinations(ranked, 2)
    return [(a, b, (r < s) - (r > s)) for (a, r), (b, s) in two if a != b]


def _of_likes(items: Sequence[Like]) -> tuple[int, int, int]:
    """Pairs of a liked and a disliked reply: the liked one longer, shorter, as long."""
    lengths = {
        side: np.array([len(x.completion) for x in items if x.liked is side]) for side in (True, False)
    }
    disliked = np.sort(lengths[False])
    below = np.searchsorted(disliked, lengths[True], "left")  # dislikes that each like is longer than
    up_to = np.searchsorted(disliked, lengths[True], "right")
    return int(below.sum()), int((len(disliked) - up_to).sum()), int((up_to - below).sum())
