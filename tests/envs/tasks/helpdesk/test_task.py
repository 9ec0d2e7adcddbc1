"""HelpDesk: the customer keeps the rules, and the reader is total."""

import itertools
import math
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, chisquare

from turnwise.envs.tasks.helpdesk import words as hd
from turnwise.envs.tasks.helpdesk.rules import ACTS, HORIZON, NONE, PARTS, Act
from turnwise.envs.tasks.helpdesk.task import HelpDesk
from turnwise.envs.tasks.helpdesk.words import read_act, read_answer, wordings

SENTENCES = {act: wordings(act) for act in ACTS}
ANSWERS = [
    (k, broken, w)
    for k in range(len(PARTS))
    for broken, of_parts in ((True, hd.BROKEN_WORDINGS), (False, hd.FINE_WORDINGS))
    for w in of_parts[k]
]
LAST_WORDS = (*hd.SOLVED_WORDINGS, *hd.UNSOLVED_WORDINGS)
OPENINGS = [f"{g} {c}" for g in hd.GREETINGS for c in hd.COMPLAINTS]
EVERY_UTTERANCE = [
    *itertools.chain.from_iterable(SENTENCES.values()),
    *(text for _, _, text in ANSWERS),
    *hd.CONFUSED_WORDINGS,
    *LAST_WORDS,
    *OPENINGS,
]
WORDS = sorted({w for text in EVERY_UTTERANCE for w in re.findall(r"[a-z']+", text.lower())})


def say(kind: str, part: int, wording: int = 0) -> str:
    return SENTENCES[Act(kind, part)][wording % 4]


def fault_of(desk: HelpDesk, lane: int) -> int:
    return PARTS.index(desk.hidden(lane)["fault"])


# Language


@pytest.mark.parametrize("act", ACTS, ids=str)
def test_every_wording_is_read_back_whatever_its_case_and_punctuation(act):
    for text in wordings(act):
        for variant in (
            text,
            text.upper(),
            re.sub(r"[^\w ]", "", text),
            f"  ...{text}!?\n",
            text.replace(" ", ", "),
        ):
            assert read_act(variant) == act, variant


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   \n",
        "Hello, how are you today?",
        "the screen",  # a part but no act
        "please test it for me",  # an act but no part
        "please test the screen and the camera",
        "replace the screen, the speaker too",
        "replace the batteries and the screen",
        "test the screen, then replace it",  # two kinds of act
        "test the new screen",
        "do not replace the screen",
        "you don't need to test the battery",
        "no need to check the camera",
        "please test the touchscreen",  # not one of the parts
        "contest the screen",  # no cue inside another word
        "t e s t s c r e e n",
        "ｔｅｓｔ ｔｈｅ ｓｃｒｅｅｎ",
        "\x00\ud800 test",
    ],
)
def test_what_is_not_plain_is_not_read(text):
    assert read_act(text) == NONE


def test_one_part_named_twice_is_still_one_part():
    assert read_act("Test the SCREEN. Yes, the screen's glass: test it!") == Act("test", 1)
    assert read_act("swap both speakers") == Act("fix", 2)


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(), max_size=200))
def test_reader_is_total_on_any_string(text):
    assert read_act(text) in (*ACTS, NONE)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=14))
def test_reader_never_guesses_between_parts_in_word_salad(words):
    """What a half-trained model says: words of the vocabulary in any order."""
    act = read_act(" ".join(words))
    named = {PARTS.index(w) for w in words if w in PARTS}
    if len(named) != 1:
        assert act == NONE
    else:
        assert act in (NONE, Act("test", *named), Act("fix", *named))


def test_every_sentence_has_one_meaning():
    """The probability of a message is that of its act over the number of wordings only if none is shared."""
    assert max(Counter(EVERY_UTTERANCE).values()) == 1
    for k, broken, text in ANSWERS:
        assert read_answer(text) == (k, broken)
    assert {read_answer(t) for t in (*hd.CONFUSED_WORDINGS, *LAST_WORDS, *OPENINGS)} == {None}


def test_size_of_the_language():
    assert 200 <= len(WORDS) <= 400
    lengths = [len(text.split()) for text in EVERY_UTTERANCE]
    assert min(lengths) >= 4
    assert max(lengths) <= 10
    assert min(len(w) for w in SENTENCES.values()) >= 4
    assert min(map(len, (*hd.BROKEN_WORDINGS, *hd.FINE_WORDINGS, hd.CONFUSED_WORDINGS))) >= 4
    assert min(map(len, (hd.SOLVED_WORDINGS, hd.UNSOLVED_WORDINGS))) >= 4


def test_opening_names_no_part():
    assert not [text for text in OPENINGS if any(part in text.lower() for part in PARTS)]


# Rules


@pytest.mark.parametrize("seed", range(6))
def test_right_fix_pays_one_wrong_fix_costs_one_and_both_end(seed):
    desk = HelpDesk()
    desk.reset([0, 1], [seed, seed])
    fault = fault_of(desk, 0)
    right, wrong = desk.step([0, 1], [say("fix", fault, 3), say("fix", (fault + 1) % 4, 5)])
    assert (right.reward, right.terminated, right.truncated, right.info["success"]) == (
        1.0,
        True,
        False,
        True,
    )
    assert (wrong.reward, wrong.terminated, wrong.truncated, wrong.info["success"]) == (
        -1.0,
        True,
        False,
        False,
    )
    assert right.messages[0].content in hd.SOLVED_WORDINGS
    assert wrong.messages[0].content in hd.UNSOLVED_WORDINGS
    assert right.info["act"] == f"fix {PARTS[fault]}"
    with pytest.raises(ValueError, match="lane 0: the conversation is over"):
        desk.step([0], ["anything"])


def test_unreadable_turns_cost_are_answered_and_count_until_the_true_end():
    """Six turns nobody understands, one test, one more: 8 * -0.05, and the eighth ends in silence."""
    desk = HelpDesk()
    desk.reset([0], [7])
    said = ["", "blah", "test screen camera", "do not fix the screen", "?", "\ud800", say("test", 2), "bye"]
    responses = [desk.step([0], [text])[0] for text in said]
    assert [r.reward for r in responses] == [-0.05] * HORIZON
    assert [r.terminated for r in responses] == [False] * 7 + [True]
    assert not any(r.truncated for r in responses)
    assert [r.info["read"] for r in responses] == [False] * 6 + [True, False]
    assert all(r.messages[0].content in hd.CONFUSED_WORDINGS for r in responses[:6])
    assert read_answer(responses[6].messages[0].content)[0] == 2
    assert responses[7].messages == ()
    assert responses[7].info == {"act": "none", "read": False, "success": False}


def test_a_fix_on_the_last_turn_still_pays():
    desk = HelpDesk()
    desk.reset([0], [11])
    for _ in range(HORIZON - 1):
        assert not desk.step([0], [say("test", 0)])[0].terminated
    (last,) = desk.step([0], [say("fix", fault_of(desk, 0))])
    assert (last.reward, last.terminated, last.truncated) == (1.0, True, False)


def _tests_of_part_zero(conversations: int) -> tuple[list[int], list[list[tuple[bool, str]]]]:
    lanes = list(range(conversations))
    desk = HelpDesk()
    desk.reset(lanes, [10_000 + i for i in lanes])
    heard = [[] for _ in lanes]
    for _ in range(3):
        for lane, response in enumerate(desk.step(lanes, [say("test", 0)] * conversations)):
            text = response.messages[0].content
            part, broken = read_answer(text)
            assert part == 0
            heard[lane].append((broken, text))
    return [fault_of(desk, lane) for lane in lanes], heard


def test_answers_are_right_85_percent_of_the_time_independently_and_faults_uniform():
    """Of three tests of one part: P(right) .85 each, P(first two right) .85^2; margin 4 standard errors."""
    n = 4000
    faults, heard = _tests_of_part_zero(n)
    right = np.array([[broken == (f == 0) for broken, _ in h] for f, h in zip(faults, heard, strict=True)])
    for fault_is_it in (True, False):
        chosen = right[[(f == 0) == fault_is_it for f in faults]]
        assert chosen.mean() == pytest.approx(0.85, abs=4 * math.sqrt(0.85 * 0.15 / chosen.size))
    both = 0.85**2
    assert (right[:, 0] & right[:, 1]).mean() == pytest.approx(both, abs=4 * math.sqrt(both * (1 - both) / n))
    assert chisquare(np.bincount(faults, minlength=4)).pvalue > 1e-4


def test_wording_says_nothing_about_the_hidden_fault():
    """Given what is meant, the wording of opening and answers is independent of the truth, and uniform."""
    faults, heard = _tests_of_part_zero(4000)
    for meant, of_parts in ((True, hd.BROKEN_WORDINGS), (False, hd.FINE_WORDINGS)):
        table = np.zeros((2, len(of_parts[0])))
        index = {w: i for i, w in enumerate(of_parts[0])}
        for fault, answers in zip(faults, heard, strict=True):
            for broken, text in answers:
                if broken == meant:
                    table[int(fault == 0), index[text]] += 1
        assert chi2_contingency(table).pvalue > 1e-4
        assert chisquare(table.sum(0)).pvalue > 1e-4
    desk = HelpDesk()
    lanes = list(range(9000))
    openings = [m.content for (m,) in desk.reset(lanes, [20_000 + i for i in lanes])]
    order = {text: i for i, text in enumerate(OPENINGS)}
    table = np.zeros((4, len(OPENINGS)))
    for lane, text in enumerate(openings):
        table[fault_of(desk, lane), order[text]] += 1
    assert chi2_contingency(table).pvalue > 1e-4
    assert chisquare(table.sum(0)).pvalue > 1e-4


def test_a_conversation_does_not_depend_on_its_neighbours():
    said = [say("test", 0), say("test", 3, 4), "what?", say("test", 0, 9), say("fix", 2)]
    desk = HelpDesk()
    (opening,) = desk.reset([0], [42])
    alone = [opening, *(desk.step([0], [text])[0] for text in said)]

    crowd = HelpDesk()
    crowd.reset([4, 9], [1, 2])
    crowd.step([9], [say("fix", 1)])
    beside = [crowd.reset([9, 7], [5, 42])[1]]
    for turn, text in enumerate(said):
        if turn == 2:  # the neighbour's conversation is replaced meanwhile
            crowd.reset([9], [6])
        beside.append(crowd.step([4, 7, 9], [say("test", turn % 4), text, "hm"])[1])
    assert beside == alone
