"""Tables of acts by hand, and which acts before an answer they look at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from turnwise.algorithms.acts.pomdp import sequences_of
from turnwise.data.acts.labelled import by_function
from turnwise.data.acts.talks import ActLogs, ActTalk, Codes, cut_turns
from turnwise.data.dialogue import Dialogue
from turnwise.data.other_side import turned
from turnwise.envs.dialogue import Message
from turnwise.evaluation.measures.partners.answers import ActTalks, NextAnswers, Place, with_memory


def talk(*turns: tuple[int, int]) -> ActTalk:
    """(act, answer) in order."""
    acts, answers = np.array(turns).T
    K, none = len(acts), np.full(len(acts), np.nan)
    return ActTalk(0, acts, answers, np.zeros(K), True, none, none)


TALKS = [talk((0, 1), (0, 1), (1, 2)), talk((0, 2))]


def test_a_unigram_by_hand():
    """Answers 1, 1, 2, 2 of three: two kinds, so p(o) = (n(o) + 2 / 3) / 6."""
    found = NextAnswers(TALKS, 3, 0).probabilities(())
    assert found == pytest.approx([2 / 18, 8 / 18, 8 / 18])


def test_a_bigram_falls_back_by_how_many_kinds_were_seen():
    """After act 0: 1, 1, 2, two kinds: (n + 2 p) / 5. After act 1: 2 alone: (n + p) / 2. After act 7, which
    was never seen, the unigram stands."""
    model = NextAnswers(TALKS, 3, 1)
    p = np.array([2, 8, 8]) / 18
    assert model.probabilities((0,)) == pytest.approx((np.array([0, 2, 1]) + 2 * p) / 5)
    assert model.probabilities((1,)) == pytest.approx((np.array([0, 0, 1]) + p) / 2)
    assert model.probabilities((7,)) == pytest.approx(p)
    assert model.probabilities((0,)).sum() == pytest.approx(1)


def test_a_trigram_looks_at_the_answer_before():
    """Act 0 after answer 1 was answered by 1, at the one place; at an opening only the act is known."""
    two, three = NextAnswers(TALKS, 3, 1), NextAnswers(TALKS, 3, 2)
    p = two.probabilities((0,))
    assert three.probabilities((0, 1)) == pytest.approx((np.array([0, 1, 0]) + p) / 2)
    assert three.probabilities((0,)) == pytest.approx(p)
    assert three.probabilities((0, 1, 0, 1)) == pytest.approx(three.probabilities((0, 1)))  # no further back


def test_a_network_that_remembers_tells_what_no_table_of_three_acts_can():
    """The first of five answers comes back as the last; in between all is the same. To tables of the latest
    three acts the last one is a coin too, 2 ln 2 / 5; memory pays for the first alone, ln 2 / 5."""
    rng = np.random.default_rng(0)
    talks = [talk((0, 1 + a), (0, 0), (0, 0), (0, 0), (0, 1 + a)) for a in rng.integers(2, size=300).tolist()]
    parts = [ActLogs(tuple(x), ("a",), ("0", "1", "2"), ("o",)) for x in (talks[:240], talks[240:])]
    known, others = map(sequences_of, parts)
    found = with_memory(known, others, seed=0, quiet=True)
    assert found["low"] <= found["value"] <= found["high"]
    assert np.log(2) / 5 - 0.02 < found["value"] < 1.4 * np.log(2) / 5


def _last_line(text: str, before: Sequence[Message]) -> str:
    return text.split("\n")[-1]


def test_what_a_tool_said_in_a_turn_is_read_as_the_log_has_it():
    """The partner's own view has a tool's words behind a mark; acts before a place are those of the log: the
    latest first, "deal" of the agent, "worth 4" (1, as 0 is silence) of the turn before, "the hats"."""
    logged = Dialogue(
        (
            Message("user", "hello"),
            Message("assistant", "the hats"),
            Message("user", "fine"),
            Message("tool", "worth 4"),
            Message("assistant", "deal"),
            Message("user", "<selection>"),
        ),
        terminated=True,
    )
    cut = cut_turns(logged.messages)
    codes = Codes(
        by_function(cut.said, _last_line, "agent_acts", other=False),
        by_function([u for u in cut.heard if u is not None], _last_line, "partner_acts", other=True),
        by_function([cut.opening], _last_line, "opening_acts", other=True),
    )
    view = turned(logged)
    assert view is not None and view.messages[2].content == "fine\n[tool] worth 4"
    place = Place(0, 1, view.messages[:4], view.messages[4].content)
    (symbols,) = ActTalks.of(codes, [place]).symbols
    acts, answers = list(codes.acts), list(codes.answers)
    assert symbols == (acts.index("deal"), answers.index("worth 4"), acts.index("the hats"))
