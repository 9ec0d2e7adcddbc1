"""How the car dealer's people talk, and how the seller is understood."""

import itertools
import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turnwise.envs.tasks.dealer.buyer import BUYER, HALF, OPENING, shelf
from turnwise.envs.tasks.dealer.reading import called_cars, read_act, read_shelf
from turnwise.envs.tasks.dealer.rules import (
    ACTS,
    ANSWERS,
    ASK_BUDGET,
    ASK_WISHES,
    CARS,
    GIVE_DISCOUNT,
    LAST_WORDS,
    LOOK_UP,
    NONE,
    PITCH_IT,
    STOCKS,
    Act,
)
from turnwise.envs.tasks.dealer.seller import SELLER, say


def ways(grammar):
    """Every sentence with its act, as often as it can be made."""
    for templates in grammar.templates.values():
        for start, template in itertools.product(grammar.starts, templates):
            for words in itertools.product(*(template.options(n) for n in template.names)):
                yield (start + template.text.format(**dict(zip(template.names, words, strict=True)))).lower()


@pytest.mark.parametrize("grammar", [SELLER, BUYER, OPENING], ids=["seller", "buyer", "opening"])
def test_no_two_ways_lead_to_one_sentence(grammar):
    """Else its probability would be a sum."""
    counts = Counter(ways(grammar))
    assert counts.total() == sum(grammar.count(act) for act in grammar.templates)
    assert max(counts.values()) == 1


def test_the_buyer_has_words_for_all_that_it_means_and_half_of_them_for_logs():
    assert set(BUYER.templates) == set(HALF.templates) == {*ANSWERS, *LAST_WORDS}
    places = Counter()
    for act, whole in BUYER.templates.items():
        texts = [t.text for t in whole]
        kept = [t.text for t in HALF.templates[act]]
        assert len(kept) == len(texts) / 2 and set(kept) < set(texts)
        places.update(texts.index(t) for t in kept)
    assert set(places) == set(range(6))  # each turn of phrase is kept for some meanings
    rng = np.random.default_rng(0)
    for act in BUYER.templates:
        assert {BUYER.read(HALF.say(act, rng).text) for _ in range(30)} == {act}


def test_every_message_of_the_seller_is_read_back_whatever_its_case():
    rng = np.random.default_rng(1)
    for act in ACTS:
        for _ in range(150):
            text = say(act, rng).text
            assert read_act(text) == read_act(text.upper()) == read_act(f"  {text}\n") == act, text
            if act == LOOK_UP:
                assert called_cars(text) == (1, 2, 3, 4)


@pytest.mark.parametrize(
    ("text", "act"),
    [
        ("Would the estate be something for you?", Act("quote", 3)),
        ("3,000 and it's yours", Act("quote", 3)),
        ("3000, and you don't have to wait.", NONE),  # negated, as far as it can tell
        ("We have a roadster, only 4k.", Act("quote", 4)),
        ("How about two thousand?", Act("quote", 2)),
        ("What are you prepared to pay?", ASK_BUDGET),
        ("How much money do you have", ASK_BUDGET),
        ("What is important to you?", ASK_WISHES),
        ("Do you need a big one?", ASK_WISHES),
        ("I can give you 10 percent off!", GIVE_DISCOUNT),
        ("It drives smooth and is gorgeous.", PITCH_IT),
        ("Picture yourself in the roadster.", PITCH_IT),
        ("look_up({})", LOOK_UP),
        ('<tool_call>\n{"name": "look_up", "arguments": {"cars": "all"}}\n</tool_call>', LOOK_UP),
        ('Here you are: {"name":"look_up","parameters":{"car":"estate"}}', LOOK_UP),
        ("The estate is three thousand.\ncall look_up(", LOOK_UP),
    ],
)
def test_free_english_and_calls_are_understood(text, act):
    assert read_act(text) == act


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  \n",
        "Hello.",
        "Let me look that up.",  # words alone call nothing
        "call sell({})",
        "The saloon or the estate?",
        "The saloon for four thousand.",  # its price is two
        "I will not sell the roadster.",
        "The estate is three thousand, with a discount.",
        "Imagine a discount.",
        "What about the weather?",
        "b u d g e t ?",
        "\x00\ud800",
    ],
)
def test_what_is_not_plain_is_not_read(text):
    assert read_act(text) == NONE


_SALAD = ["the", "estate", "roadster", "two", "thousand", "not", "?", "what", "budget", "call look_up(", "{"]
_SALAD += ['"cars"', "}", ")", "discount", "imagine", "4k", "in stock", "[", "]", ":"]


@settings(max_examples=150, deadline=None)
@given(st.text(st.characters(), max_size=200) | st.lists(st.sampled_from(_SALAD), max_size=12).map(" ".join))
def test_the_readers_are_total(text):
    assert read_act(text) in (*ACTS, NONE)
    assert set(called_cars(text)) <= {1, 2, 3, 4} and called_cars(text)
    assert set(read_shelf(text)) <= set(STOCKS)
    assert read_shelf(json.dumps({"in stock": text, "sold": [text]})) is not None


def test_the_tool_answers_for_the_cars_that_it_was_asked_for():
    assert called_cars('call look_up({"cars": ["roadster", "saloon"]})') == (2, 4)
    assert called_cars("I have an estate.\nlook_up(hatchbacks)") == (1,)
    assert called_cars("The estate? call look_up({})") == called_cars("hello") == (1, 2, 3, 4)
    assert json.loads(shelf(3, (2, 4))) == {"in stock": ["saloon"], "sold": ["roadster"]}
    for dearest in STOCKS:
        assert read_shelf(shelf(dearest, (1, 2, 3, 4))) == (dearest,)
    assert read_shelf(shelf(3, (4,))) == (2, 3)
    assert read_shelf(shelf(2, (1,))) == STOCKS
    for text in ("[]", "3", '{"in stock": 1, "sold": 2}', '{"in stock": [{}], "sold": []}', "[" * 100_000):
        assert read_shelf(text) == STOCKS
    assert CARS[3] == "roadster"
