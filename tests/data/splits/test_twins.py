"""Conversations that say the same, and those that only share sentences."""

from __future__ import annotations

import random
from collections import Counter

import pytest

import turnwise as tw
from turnwise.data.dialogue import Dialogue
from turnwise.data.files.logs import read_logs
from turnwise.data.splits.twins import find_twins
from turnwise.envs.dialogue import Message

WORDS = "hat ball book fuse lamp cable port dog tree road sea map bread cup door".split()  # noqa: SIM905


def said(*texts: str, first: str = "user", notes: str | None = None) -> Dialogue:
    """The sides take turns; `notes` is what this side was told in private."""
    roles = ("user", "assistant") if first == "user" else ("assistant", "user")
    messages = [] if notes is None else [Message("system", notes)]
    messages += [Message(roles[i % 2], text) for i, text in enumerate(texts)]
    return Dialogue(tuple(messages))


def sentences(n: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=8)) for _ in range(n)]


def grouped(*dialogues: Dialogue) -> list[int]:
    """Groups of the first ones, among 40 other talks."""
    others = [said(*sentences(6, 1000 + i)) for i in range(40)]
    return find_twins([*dialogues, *others]).group[: len(dialogues)].tolist()


def test_the_two_sides_of_a_talk_are_twins():
    a = said("I want the hat.", "Deal")
    b = said("i want  the hat.", "deal", first="assistant")
    found = find_twins([a, said("Other", "words"), b])
    assert found.group[0] == found.group[2] != found.group[1] and found.count == 2


@pytest.mark.parametrize(
    ("change", "twins"),
    [
        (lambda s: {"notes": "you value hats"}, True),
        (lambda s: {"texts": [*s[:5], "another last word"]}, True),
        (lambda s: {"texts": s[:4]}, True),
        (lambda s: {"texts": [*s, *sentences(1, 77)]}, True),
        (lambda s: {"texts": [*s[:3], *sentences(3, 77)]}, False),
        (lambda s: {"texts": [s[5], s[3], s[4], s[1], s[2], "new"]}, False),
    ],
    ids=["private notes", "one message", "a beginning", "a message more", "half", "another order"],
)  # fmt: skip
def test_a_talk_that_is_nearly_the_same(change, twins):
    """Of six messages: five in their order, or all of the shorter talk; three, or a shuffle, are too few."""
    texts = sentences(6, 1)
    changed = {"texts": texts} | change(texts)
    a = said(*texts, notes="you value books")
    b = said(*changed["texts"], first="assistant", notes=changed.get("notes"))
    one, other = grouped(a, b)
    assert (one == other) is twins


def test_a_long_text_with_another_word_is_a_twin():
    """One question and one answer of twenty sentences: a message is compared sentence by sentence."""
    text = ". ".join(sentences(20, 2))
    one, other = grouped(said("Tell me.", text), said("Tell me.", text.replace(text[:60], "Well", 1)))
    assert one == other


def test_talks_of_the_same_few_sentences_are_no_twins():
    """HelpDesk says everything in some 60 sentences. Only those that say all the same are twins."""
    logs = read_logs(tw.HelpDesk().rows(3000, 0))
    alike = Counter(tuple(sorted(m.content for m in d.messages)) for d in logs)
    found = find_twins(logs)
    assert found.count == sum(n for n in alike.values() if n > 1) < 60
    assert max(Counter(found.group.tolist()).values()) <= 3


def test_order_does_not_matter():
    talks = [said(*sentences(6, i // 2)) for i in range(40)]
    pairs = find_twins(talks).group
    again = find_twins(talks[::-1]).group[::-1]
    assert [pairs[i] == pairs[i + 1] for i in range(39)] == [again[i] == again[i + 1] for i in range(39)]


def test_empty_words_are_nobodys_twin_by_chance():
    empty = [Dialogue((Message("user", f"q{i}"), Message("assistant", ""))) for i in range(9)]
    assert find_twins(empty).count == 0
    assert find_twins([]).count == 0
