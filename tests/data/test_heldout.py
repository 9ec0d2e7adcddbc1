"""Which conversations are held out."""

from __future__ import annotations

import pytest

from turnwise.data.dialogue import Dialogue
from turnwise.data.heldout import split_heldout
from turnwise.envs.dialogue import Message
from turnwise.run.errors import InputError, SettingError


def talks(n: int, **columns) -> list[Dialogue]:
    said = (Message("assistant", "hi"),)
    return [
        Dialogue(said, id=f"c{i}", metadata={k: column(i) for k, column in columns.items()}) for i in range(n)
    ]


def test_the_id_alone_decides():
    """In any order, of any subset, the same ones; about the share that was asked for."""
    every = talks(4000)
    learnt, held = split_heldout(every, 0.1)
    assert len(learnt) + len(held) == 4000 and 0.08 < len(held) / 4000 < 0.12
    some = [d for d in reversed(every) if d.id.endswith("3")]
    assert {d.id for d in split_heldout(some, 0.1)[1]} == {d.id for d in held} & {d.id for d in some}


def test_what_belongs_together_stays_together():
    """Eight conversations a customer: all eight are held out or none is."""
    learnt, held = split_heldout(talks(4000, customer=lambda i: i % 500), 0.1, by="customer")
    one, other = ({d.metadata["customer"] for d in part} for part in (learnt, held))
    assert not one & other and len(one | other) == 500
    assert len(held) == 8 * len(other) and 0.05 < len(other) / 500 < 0.15


def test_a_column_that_is_missing_is_named():
    words = r"heldout_by is 'shop'; expected a column of every conversation; 'c0' has id, customer"
    with pytest.raises(InputError, match=words) as caught:
        split_heldout(talks(3, customer=lambda i: i), 0.1, by="shop")
    assert isinstance(caught.value, SettingError)
    assert caught.value.as_flag().startswith("--heldout-by shop: expected a column of every conversation; ")
