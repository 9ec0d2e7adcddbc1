"""How the travel desk's people talk: thousands of sentences, no word of which gives an act away."""

import itertools
import math
import re
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from turnwise.envs.tasks.grammar import Grammar, weighed
from turnwise.envs.tasks.travel.desk import DESK
from turnwise.envs.tasks.travel.guest import GUEST, OPENING
from turnwise.envs.tasks.travel.logs import travel_logs
from turnwise.envs.tasks.travel.reading import read_act
from turnwise.envs.tasks.travel.rules import ACTS, ANSWERS, ASK_PACE, ASK_PLACE, NONE, SOOTHE, Act

TOLD = [a for a in ANSWERS if a != "confused"]
"""what the guest of the logs can mean while the talk goes on"""


@pytest.fixture(scope="module")
def logs():
    return list(travel_logs(3000, 7, acts=True))


def said(logs, role):
    """(text, act) of what a role says, the opening left out."""
    return [(m["content"], m["act"]) for row in logs for m in row["messages"][1:] if m["role"] == role]


# Grammar


def test_a_grammar_by_hand():
    """Starts 2; "{x} or {x2}" has 3 * 2 ways and weight .4, "only {x}" 3 ways and .6."""
    words = {"x": ("a", "b", "c")}
    toy = Grammar(("", "Oh, "), {"ask": weighed([(0.4, ["{x} or {x2}?"]), (0.6, ["only {x}"])], words)})
    assert toy.count("ask") == 2 * (6 + 3)
    rng = np.random.default_rng(0)
    drawn = [toy.say("ask", rng) for _ in range(6000)]
    assert len({d.text for d in drawn}) == 18
    for text, logp in {d.text: d.logp for d in drawn}.items():
        share = 0.6 / 3 if "nly" in text else 0.4 / 6
        assert logp == pytest.approx(math.log(share / 2), abs=1e-12)
        assert toy.read(text) == toy.read(text.upper()) == "ask"
    assert {d.text for d in drawn} >= {"A or c?", "Oh, a or c?", "Only b", "Oh, only b"}
    assert not [d for d in drawn if re.search(r"\b([abc]) or \1", d.text.lower())]
    assert toy.read("a or b") is None and toy.read("") is None


def ways(grammar, act):
    """Every sentence of the act, as often as it can be made."""
    for start, template in itertools.product(grammar.starts, grammar.templates[act]):
        names = template.names
        for words in itertools.product(*(template.options(n) for n in names)):
            chosen = dict(zip(names, words, strict=True))
            kinds = [(n.rstrip("0123456789"), w) for n, w in chosen.items()]
            if len(set(kinds)) == len(kinds):
                yield (start + template.text.format(**chosen)).lower()


@pytest.mark.parametrize("grammar", [DESK, GUEST, OPENING], ids=["desk", "guest", "opening"])
def test_no_two_ways_lead_to_one_sentence(grammar):
    """Else its probability would be a sum. The starts are put before a body later: one is enough here."""
    bare = Grammar(("",), grammar.templates)
    bodies = Counter(text for act in grammar.templates for text in ways(bare, act))
    assert bodies.total() == sum(bare.count(act) for act in grammar.templates)
    assert max(bodies.values()) == 1
    starts = [s.lower() for s in grammar.starts if s]
    assert not [t for t in bodies for s in starts if t.startswith(s) and t.removeprefix(s) in bodies]


def test_wordings_number_thousands():
    """Also of each act that decides anything; 16,000 messages of either side hold over 6,000 sentences."""
    assert min(DESK.count(str(a)) for a in ACTS) > 1500
    assert min(GUEST.count(a) for a in TOLD) > 2500
    assert sum(DESK.count(str(a)) for a in ACTS) > 150_000
    assert sum(GUEST.count(a) for a in TOLD) > 70_000


# What words tell


def test_sentences_hardly_repeat(logs):
    """Half of a side's messages, or more, stand in the logs once."""
    for role in ("assistant", "user"):
        counts = Counter(text for text, _ in said(logs, role))
        assert len(counts) > 0.5 * counts.total()


@pytest.mark.parametrize("role", ["assistant", "user"])
def test_no_single_word_identifies_an_act(logs, role):
    """Of each word with 50 messages or more, at most 3 in 4 have one act; telling any act from the others by
    the presence of the best word, or its absence, misses it or is wrong in more than one case of four."""
    of_word, of_act = defaultdict(Counter), Counter()
    for text, act in said(logs, role):
        of_act[act] += 1
        for word in set(re.findall(r"[a-z']+", text.lower())):
            of_word[word][act] += 1
    common = {w: c for w, c in of_word.items() if c.total() >= 50}
    assert len(common) > 100
    assert max(max(c.values()) / c.total() for c in common.values()) < 0.75
    for act in TOLD if role == "user" else map(str, ACTS):
        f1 = max(2 * c[act] / (c.total() + of_act[act]) for c in common.values())
        assert f1 < 0.75, act


def test_a_bag_of_words_reads_much_and_not_all_and_pairs_of_words_read_more(logs):
    """Logistic regression taught with every act of half of the logs: 75% to 90% of the answers, not all."""

    def accuracy(role, acts, ngrams):
        found = [(t, a) for t, a in said(logs, role) if a in acts]
        texts, labels = zip(*found, strict=True)
        half = len(texts) // 2
        count = CountVectorizer(ngram_range=(1, ngrams), min_df=2, binary=True).fit(texts[:half])
        fitted = LogisticRegression(max_iter=300).fit(count.transform(texts[:half]), labels[:half])
        return fitted.score(count.transform(texts[half:]), labels[half:])

    answers = accuracy("user", set(TOLD), 1)
    offers = accuracy("assistant", {str(a) for a in ACTS if a.kind == "offer"}, 1)
    assert 0.7 < answers < 0.9 and 0.7 < offers < 0.92
    assert accuracy("user", set(TOLD), 2) > answers + 0.05


def test_what_is_worded_beside_the_meaning_is_drawn_alike_whatever_is_meant(logs):
    """Starts, and the place that a grumble names: chi-square tests of uniformity."""
    firsts = Counter()
    for text, _ in said(logs, "assistant"):
        start = max((s for s in DESK.starts if text.startswith(s)), key=len)
        firsts[start] += 1
    counts = [firsts[s] for s in DESK.starts]
    assert chisquare(counts).pvalue > 1e-4
    seas = [
        ("sea" if re.search("beach|dunes|tide", t) else "hills", row["place"])
        for row in logs
        for m in row["messages"]
        if m["act"] == "grumble"
        for t in [m["content"]]
        if re.search("beach|dunes|tide|peaks|valley|woods", t)
    ]
    table = Counter(seas)
    assert chisquare([table[a, b] for a in ("sea", "hills") for b in ("sea", "hills")]).pvalue > 1e-4


# The reader


def test_every_sentence_of_the_desk_is_read_back_whatever_its_case():
    rng = np.random.default_rng(1)
    for act in ACTS:
        for _ in range(300):
            text = DESK.say(str(act), rng).text
            assert read_act(text) == read_act(text.upper()) == read_act(f"  {text}\n") == act, text


@pytest.mark.parametrize(
    ("text", "act"),
    [
        (
            "How about a hotel near the beach? It is so peaceful there that I would book it.",
            Act("offer", 0, 0),
        ),
        ("I'd recommend the Alps; parties all week.", Act("offer", 1, 1)),
        ("We have a cabin in the forest. It isn't noisy.", Act("offer", 1, 0)),
        ("A house by the sea, away from the crowds", Act("offer", 0, 0)),
        ("I suggest sailing instead of hiking, and dancing instead of silence.", Act("offer", 0, 1)),
        ("Nothing but silence, and the ocean.", Act("offer", 0, 0)),
        ("Mountains or seaside?", ASK_PLACE),
        ("Where would you like to go?", ASK_PLACE),
        ("Are you fond of hiking?", ASK_PLACE),
        ("Do you prefer a lively place?", ASK_PACE),
        ("What kind of evenings do you like?", ASK_PACE),
        ("loud or quiet", ASK_PACE),
        ("Please bear with me.", SOOTHE),
        ("Thanks a lot!", SOOTHE),
        ("I apologise, no rush.", SOOTHE),
    ],
)
def test_free_english_is_understood(text, act):
    assert read_act(text) == act


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  \n",
        "Hello.",
        "The beach.",  # a place, and nothing is done
        "Quiet.",
        "I have a hotel for you.",  # neither place nor pace
        "I will book the beach or the hills, quiet.",  # two places
        "I offer the beach, quiet and lively.",  # two paces
        "I offer neither the beach nor the hills, but it is quiet.",
        "I will not book the beach for you, it is quiet there.",  # the only place is denied
        "Would you like a quiet beach?",  # asked, not offered; and about both
        "I have a research seat, unrest, and disquiet.",  # no cue inside another word
        "b e a c h, q u i e t",
        "\x00\ud800",
    ],
)
def test_what_is_not_plain_is_not_read(text):
    assert read_act(text) == NONE


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(), max_size=200))
def test_the_reader_is_total_on_any_string(text):
    assert read_act(text) in (*ACTS, NONE)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                "the",
                "beach",
                "hills",
                "quiet",
                "loud",
                "not",
                "but",
                ",",
                ".",
                "?",
                "or",
                "book",
                "take",
                "sorry",
            ]
        ),
        max_size=12,
    )
)
def test_and_on_any_salad_of_its_own_words(words):
    assert read_act(" ".join(words)) in (*ACTS, NONE)
