"""The two sets of human preferences as pairs and rankings: their counts and what is known of them."""

from pathlib import Path

import pytest

from turnwise.data.cards.feedback import feedback_card

FILE = Path(__file__).parents[2] / "experiments" / "preference_data.py"


@pytest.fixture
def data(load_script):
    module = load_script(FILE)
    for name in ("ethics_utilitarianism", "ukp_convarg1"):
        if not (module.DATA / name).is_dir():
            pytest.skip(f"{name} is not at {module.DATA}; set TURNWISE_DATA to the data folder")
    return module


def test_ethics(data):
    """Counts as published; length does not tell which is the more pleasant."""
    sizes = {split: len(data.ethics_pairs(split)) for split in data.SPLITS}
    assert sizes == {"train": 13_738, "test": 4_808, "test_hard": 4_272}
    first = data.ethics_pairs("train")[0]
    assert first.chosen.startswith(first.rejected) and first.chosen.endswith("one small castle.")
    assert 0.45 < feedback_card(data.ethics_pairs("test"))["longer_wins"]["share"] < 0.48


def test_convarg(data):
    """Both parts have the same 32 sides; the better of a pair has the better rank in 10,806 of 11,650 as the
    files have them (here pairs are looked up by text), and is longer in three of four."""
    pairs, rankings = data.convarg_pairs(), data.convarg_rankings()
    assert list(pairs) == list(rankings) and len(pairs) == 32
    every = [pair for some in pairs.values() for pair in some]
    assert len(every) == 11_650 == len({pair.id for pair in every})
    assert feedback_card(every)["longer_wins"]["share"] == pytest.approx(0.773, abs=2e-3)
    better = worse = 0
    for topic, some in pairs.items():
        (ranking,) = rankings[topic]
        rank = dict(zip(ranking.replies, ranking.ranks, strict=True))
        assert min(ranking.ranks) == 1 and ranking.prompt == some[0].prompt
        for pair in some:
            better += rank[pair.chosen] < rank[pair.rejected]
            worse += rank[pair.chosen] > rank[pair.rejected]
    assert better / (better + worse) > 0.92
    assert data.convarg_rankings(1) != rankings, "shuffled by the seed"


def test_prompts(data):
    said = {some[0].prompt[0].content for some in data.convarg_pairs().values()}
    assert "ban plastic water bottles: yes emergencies only" in said and len(said) == 32
