"""Which conversations are held out."""

from __future__ import annotations

import random

import pytest

from turnwise.data.dialogue import Dialogue
from turnwise.data.feedback import Like
from turnwise.data.splits.heldout import split_by_prompt, split_heldout
from turnwise.envs.dialogue import Message
from turnwise.run.errors import InputError, SettingError


def talk(i: int, reward: float = 0.0, words: str | None = None, **columns) -> Dialogue:
    said = (Message("user", f"question {i}"), Message("assistant", words or f"answer {i}", reward))
    return Dialogue(said, id=f"c{i}", metadata=columns)


def talks(n: int, **columns) -> list[Dialogue]:
    """As many different returns as conversations."""
    return [talk(i, float(i), **{k: column(i) for k, column in columns.items()}) for i in range(n)]


def ids(dialogues) -> set[str]:
    return {d.id for d in dialogues}


def test_the_words_alone_decide():
    """In any order, of any subset, under any id, the same ones; about the share that was asked for."""
    every = talks(4000)
    split = split_heldout(every, 0.1)
    assert len(split.learnt) + len(split.held) == 4000 and 0.08 < len(split.held) / 4000 < 0.12
    some = [d for d in reversed(every) if d.id.endswith("3")]
    assert ids(split_heldout(some, 0.1).held) == ids(split.held) & ids(some)
    renamed = [Dialogue(d.messages, id=f"file.jsonl:{i}") for i, d in enumerate(every)]
    assert [d.messages for d in split_heldout(renamed, 0.1).held] == [d.messages for d in split.held]


def both_sides(i: int, returns: tuple[float, float]) -> list[Dialogue]:
    """A talk as each of its two sides has it."""
    words = [f"I want {i} books", f"and I want hats for my {i} children", f"take {i} of each then"]
    mine, theirs = ("assistant", "user", "assistant"), ("user", "assistant", "user")
    found = []
    for side, roles, reward in zip("ab", (mine, theirs), returns, strict=True):
        last = max(k for k, role in enumerate(roles) if role == "assistant")
        found.append(
            Dialogue(
                tuple(
                    Message(role, text, reward if k == last else 0.0)
                    for k, (role, text) in enumerate(zip(roles, words, strict=True))
                ),
                id=f"{i}{side}",
            )
        )
    return found


@pytest.mark.parametrize("outcomes", ["many", "few"])
def test_no_held_out_talk_has_its_mirror_in_training(outcomes):
    """Both sides of 200 talks: 400 twins, and no talk on both sides of the split, in any order."""
    worth = {"many": lambda i: (i + 0.5, float(i)), "few": lambda i: (1.0, 0.0) if i % 2 else (0.0, 1.0)}
    every = [d for i in range(200) for d in both_sides(i, worth[outcomes](i))]
    random.Random(0).shuffle(every)
    split = split_heldout(every, 0.1)
    learnt, held = ({d.id[:-1] for d in part} for part in (split.learnt, split.held))
    assert not learnt & held and split.twins == 400 and split.across == 0
    assert 20 <= len(split.held) <= 60
    assert ids(split_heldout(every[::-1], 0.1).held) == ids(split.held)


def test_a_rare_outcome_is_held_out_in_its_share():
    """40 of 1,000 talks succeed. A tenth: 96 failures and 4 successes, whatever the order.

    By the words alone the successes would be 4 give or take 2: in one split of five there would be 2 or none.
    """
    every = [talk(i, float(i % 25 == 0)) for i in range(1000)]
    split = split_heldout(every, 0.1)
    assert sorted(d.undiscounted_return() for d in split.held) == [0.0] * 96 + [1.0] * 4
    assert split.outcomes == 2 and ids(split_heldout(every[::-1], 0.1).held) == ids(split.held)


def test_sparse_outcomes_are_held_out_in_their_share():
    """50 of 1,200 talks earn something, each another amount: 5 of the 120 held out do."""
    every = [talk(i, float(i) if i % 20 == 0 and i >= 200 else 0.0) for i in range(1200)]
    held = split_heldout(every, 0.1).held
    assert len(held) == 120 and sum(d.undiscounted_return() > 0 for d in held) == 5


def test_conversations_that_come_all_the_time_are_held_out_by_their_ids():
    """Four conversations, each a thousand times: no copy can have all its copies on one side."""
    every = [
        Dialogue((Message("user", "Go"), Message("assistant", f"action {i % 4}", i / 9)), id=f"c{i}")
        for i in range(4000)
    ]
    held = split_heldout(every, 0.1).held
    assert 300 < len(held) < 500
    assert ids(split_heldout(every[::-1], 0.1).held) == ids(held)


def test_what_belongs_together_stays_together():
    """Eight conversations a customer: all eight are held out or none is."""
    split = split_heldout(talks(4000, customer=lambda i: i % 500), 0.1, by="customer")
    one, other = ({d.metadata["customer"] for d in part} for part in (split.learnt, split.held))
    assert not one & other and len(one | other) == 500
    assert len(split.held) == 8 * len(other) and 0.05 < len(other) / 500 < 0.15


def test_a_value_of_a_column_is_the_split():
    every = talks(30, split=lambda i: ("train", "val", "test")[i % 3], fold=lambda i: i % 3)
    assert ids(split_heldout(every, 0.05, by="split=test").held) == {f"c{i}" for i in range(2, 30, 3)}
    assert len(split_heldout(every, 0.05, by="split=val,test").held) == 20
    assert ids(split_heldout(every, 0.05, by="fold=0").held) == {f"c{i}" for i in range(0, 30, 3)}


def test_a_value_that_no_conversation_has_is_named():
    words = "heldout_by is 'split=tset'; expected values of the column split, which has test, train; none"
    with pytest.raises(SettingError, match=words):
        split_heldout(talks(4, split=lambda i: ("train", "test")[i % 2]), 0.1, by="split=tset")


def test_a_column_that_is_missing_is_named():
    words = r"heldout_by is 'shop'; expected a column of every conversation; 'c0' has id, customer"
    with pytest.raises(InputError, match=words) as caught:
        split_heldout(talks(3, customer=lambda i: i), 0.1, by="shop")
    assert isinstance(caught.value, SettingError)
    assert caught.value.as_flag().startswith("--heldout-by shop: expected a column of every conversation; ")


def test_logs_of_their_own_are_held_out_and_their_twins_counted():
    learnt, apart = talks(20), [talk(100), talk(3)]
    split = split_heldout(learnt, 0.5, apart=apart)
    assert split.learnt == learnt and split.held == apart
    assert (split.twins, split.across) == (2, 1)
    with pytest.raises(SettingError, match="heldout_by is 'id'; expected none beside heldout_logs"):
        split_heldout(learnt, 0.1, by="id", apart=apart)


def test_prompts_that_differ_in_case_and_spaces_are_one():
    """Else one of them is held out and the other learnt from."""
    likes = [
        Like((Message("user", text),), "yes", True)
        for i in range(50)
        for text in (f"Is it the fuse {i}?", f"is it  the FUSE {i}? ")
    ]
    learnt, held = split_by_prompt(likes, 0.3)
    plain = [{" ".join(x.prompt[0].content.lower().split()) for x in part} for part in (learnt, held)]
    assert plain[1] and not plain[0] & plain[1]


def test_other_logs_that_share_a_talk_hold_out_their_own_share():
    """One of 1,000 talks is a held-out one of another log. It does not make itself all that is held out."""
    before = split_heldout(talks(1000), 0.1)
    shared = before.held[0]
    others = [shared, *(talk(i, float(i), f"reply {i}") for i in range(2000, 2999))]
    after = split_heldout(others, 0.1, like=frozenset(before.keys))
    assert ids(after.held) == ids(split_heldout(others, 0.1).held) and len(after.held) > 70
    # Of the same logs without half of their talks, what was held out is held out again, and nothing else.
    rest = talks(1000)[::2]
    assert ids(split_heldout(rest, 0.1, like=frozenset(before.keys)).held) == ids(before.held) & ids(rest)
