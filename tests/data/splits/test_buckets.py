"""Twins and splits by way of many small buckets on disk are those of one in memory."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest

from turnwise.data.cards.logs import data_card
from turnwise.data.dialogue import Dialogue
from turnwise.data.disk import buckets, columns, forest
from turnwise.data.files.logs import read_logs
from turnwise.data.splits.heldout import Split, split_heldout
from turnwise.data.splits.twins import find_twins
from turnwise.envs.dialogue import Message


def talks(n: int, outcomes: str) -> list[Dialogue]:
    """Some are said once more, by the other side, with another last word, or further on; few say "hello"."""
    draw, found = random.Random(0), list[Dialogue]()
    words = [f"{a}{b}" for a in "bdfgklmnprst" for b in ("a", "e", "i", "o", "u", "ai", "ou")]
    worth = {
        "few": lambda: draw.choice([0.0, 1.0, 1.0]),
        "many": draw.random,
        "sparse": lambda: draw.random() if draw.random() < 0.1 else 0.0,
    }[outcomes]
    for i in range(n):
        said = [" ".join(draw.choices(words, k=5)) for _ in range(draw.randint(2, 6))]
        if found and draw.random() < 0.3:
            said = [m.content for m in draw.choice(found[-40:]).messages]
            said = draw.choice([said, [*said, "and more of it"], [*said[:-1], "bye"], said[::-1]])
        if draw.random() < 0.05:
            said = ["hello", "hello"]
        first = draw.randint(0, 1)
        roles = [("user", "assistant")[(k + first) % 2] for k in range(len(said))]
        last = max((k for k, role in enumerate(roles) if role == "assistant"), default=0)
        rewards = [worth() if k == last else 0.0 for k in range(len(said))]
        messages = tuple(Message(r, s, x) for r, s, x in zip(roles, said, rewards, strict=True))
        found.append(Dialogue(messages, id=f"c{i}", rated_by="outcome"))
    return found


def facts(split: Split) -> tuple:
    sides = [[d.id for d in part] for part in (split.learnt, split.held)]
    return sides, split.twins, split.across, split.outcomes, split.keys.tolist()


@pytest.mark.parametrize("outcomes", ["few", "many", "sparse"])
def test_many_buckets_split_as_one_does(monkeypatch, outcomes: str) -> None:
    every = talks(600, outcomes)
    logs = read_logs(every, quiet=True)
    one, group, card = facts(split_heldout(logs, 0.1)), find_twins(logs).group.tolist(), data_card(logs)
    assert 30 < len(one[0][1]) < 90 and one[1] > 150, "there is something to split"
    for module, name, value in (
        (buckets, "FULL", 8),
        (buckets, "_WAITING", 500),
        (columns, "HELD", 100),
        (columns, "BLOCK", 16),
        (forest, "_FEW", 0),
    ):
        monkeypatch.setattr(module, name, value)
    logs = read_logs(every, quiet=True)
    assert facts(split_heldout(logs, 0.1)) == one
    assert find_twins(logs).group.tolist() == group and data_card(logs) == card


def test_conversations_in_a_row_are_joined_by_what_they_share() -> None:
    """Each is the one before and a message more: one group, whose number is the place of the first."""
    said = [f"message {i} of {i * i}" for i in range(12)]
    longer = [
        Dialogue(tuple(Message(("user", "assistant")[k % 2], s) for k, s in enumerate(said[:n])))
        for n in range(5, 12)
    ]
    others = [Dialogue((Message("user", f"{i} what"), Message("assistant", f"{i} that"))) for i in range(30)]
    group = find_twins([*others[:5], *longer, *others[5:]]).group.tolist()
    assert group[5:12] == [5] * 7 and all(a < b for a, b in pairwise(group[12:]))
    assert np.unique(group).size == 31
