"""What is meant in a negotiation, in acts."""

from __future__ import annotations

import numpy as np
import pytest

from turnwise.envs.dialogue import Message
from turnwise.envs.tasks.negotiation.acts import BANDS, agent_act, opening_act, partner_act, word_act

# 1 book worth 4, 2 hats worth 3 each, 3 balls worth nothing.
SYSTEM = "book 1 x 4 hat 2 x 3 ball 3 x 0"
BEFORE = (Message("system", SYSTEM),)


@pytest.mark.parametrize(
    ("text", "act"),
    [
        ("i take the book and 1 hat", "offer, 7 for me"),
        ("you can have the balls , i want everything else", "offer, 10 for me"),
        ("deal .", "accept"),
        ("no way", "refuse"),
        ("hello there", "talk"),
        ("<selection>", "close"),
    ],
)
def test_an_offer_is_what_it_would_bring_the_agent(text: str, act: str) -> None:
    assert agent_act(text, BEFORE) == act


def test_what_the_partner_asks_for_is_counted_from_the_agents_side() -> None:
    """The partner takes both hats: the book is left, worth 4."""
    assert partner_act("i need 2 hats and the balls", BEFORE) == "offer, 4-5 for me"
    assert partner_act("i need 2 hats and the balls\nworth 4", BEFORE) == "offer; worth 4-5"
    assert partner_act("ok deal\nworth 10", BEFORE) == "accept; worth 10"
    assert partner_act("sorry\nnothing agreed", BEFORE) == "refuse; nothing agreed"
    assert partner_act("<selection>", BEFORE) == "close"


def test_the_opening_knows_the_values_and_the_first_word() -> None:
    assert opening_act(SYSTEM, ()) == "cares for several; the agent begins"
    alone = "book 1 x 1 hat 3 x 3 ball 1 x 0"
    assert opening_act(f"{alone}\nok deal\nworth 3", ()) == "cares for one thing; accept; worth 0-3"


def test_what_is_worded_is_read_back_as_the_same_act() -> None:
    """For every band that some division reaches; the others ask for the next better one."""
    rng = np.random.default_rng(0)
    reached = {0, 3, 4, 6, 7, 10}
    for low, high in BANDS:
        act = f"offer, {low if low == high else f'{low}-{high}'} for me"
        said = word_act(act, BEFORE, rng)
        assert said is not None
        meant = act if any(low <= w <= high for w in reached) else "offer, 10 for me"
        assert agent_act(said, BEFORE) == meant, said
    for act in ("accept", "close"):
        assert agent_act(word_act(act, BEFORE, rng) or "", BEFORE) == act
    assert word_act("talk", BEFORE, rng) is None


def test_without_the_values_nothing_can_be_counted() -> None:
    with pytest.raises(ValueError, match="system message with counts and values"):
        agent_act("i take the book", (Message("user", "hi"),))
