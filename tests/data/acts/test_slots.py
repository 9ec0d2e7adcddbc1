"""Templates and their fillers: cut, put back, filled from another conversation."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnwise.data.acts.slots import Slots, filled, joined, kinds_of, normalised
from turnwise.envs.dialogue import Message


@pytest.mark.parametrize(
    ("text", "template"),
    [
        ("It costs $30 or 25 euros.", "It costs {money} or {money}."),
        ("At 10:30 or 5pm on 2026-01-03", "At {time} or {time} on {date}"),
        ("Order AB-1234, ticket #77, call +49 30 123456.", "Order {code}, ticket {code}, call {number}."),
        ("Write a.b@c.org or see https://x.org/y?z=1.", "Write {email} or see {url}."),
        ("2 hats, the 2nd one, 4.5% or 120", "2 hats, the 2nd one, {number} or {number}"),
        ("{number} in braces", "{{number}} in braces"),
        ("", ""),
    ],
)
def test_forms_become_slots(text: str, template: str) -> None:
    cut = Slots().cut(text)
    assert cut.text == template and joined(cut) == text


@given(st.text(alphabet="aB1 0-.,:/@#${}€+%\n", max_size=40))
def test_a_template_and_its_fillers_are_the_text(text: str) -> None:
    assert joined(Slots(frozenset({"B"})).cut(text)) == text


def test_names_are_learnt_where_one_stands_for_another() -> None:
    said = [("Call Anna today", 1), ("call Bert today", 1), ("Greetings from Dublin", 1), ("Hello", 1000)]
    slots = Slots.learn(said)
    assert slots.names == {"Anna", "Bert"}  # nothing else ever stands where Dublin does
    assert slots.cut("Anna, meet Bert").text == "{name}, meet {name}"
    assert Slots.learn([("Call Anna today", 10), ("call Bert today", 10)]).names == frozenset()  # not rare


def test_slots_are_filled_from_the_conversation_latest_first() -> None:
    slots = Slots()
    talk = [Message("user", "Case A1-1 for 30 euros"), Message("user", "and A2-2")]
    values = slots.values(talk)
    assert values == {"code": ["A2-2", "A1-1"], "money": ["30 euros"]}
    assert filled("{code} and {code} for {money}", values) == "A2-2 and A1-1 for 30 euros"
    assert filled("{code}, {code}, {code}", values) == "A2-2, A1-1, A1-1"
    assert filled("at {time}", values) is None and filled("{{x}}", {}) == "{x}"
    assert kinds_of("{code} {{code}} {time}") == ("code", "time")


def test_case_and_punctuation_do_not_matter_but_a_question_does() -> None:
    assert normalised("It WORKS,  now!") == normalised("it works now.")
    assert normalised("It works?") != normalised("It works.")
    assert normalised("I can’t") == "i can't"


def test_nobody_s_text_takes_long() -> None:
    began = time.perf_counter()
    for part in ("1", "a-", "1.", "a.", "@", "{", "$1,"):
        Slots().cut(part * 20_000)
    assert time.perf_counter() - began < 3
