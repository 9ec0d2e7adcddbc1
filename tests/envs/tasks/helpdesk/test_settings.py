"""HelpDesk's settings: wordings that no log has, one outcome at the end, acts; nothing else moves."""

import math

import numpy as np
import pytest
from scipy.stats import chisquare

from turnwise.data.files.logs import read_logs
from turnwise.envs.dialogue import HasSettings
from turnwise.envs.tasks.helpdesk.exact import behavior_value
from turnwise.envs.tasks.helpdesk.rules import ACTS, HORIZON, PARTS, Act
from turnwise.envs.tasks.helpdesk.task import HelpDesk
from turnwise.envs.tasks.helpdesk.words import Phrasebook, read_act, read_answer, wordings
from turnwise.recipes.tasks import find_task, task_called
from turnwise.run.errors import SettingError

KEYS = ("unseen_wordings", "outcome_at_end", "acts")
HALF, WHOLE = Phrasebook(halved=True), Phrasebook()
MEANINGS = [(k, broken) for k in range(len(PARTS)) for broken in (True, False)]


def plain(rows):
    """What the rows say, without acts, rewards and the task's words."""
    said = [[(m["role"], m["content"]) for m in row["messages"]] for row in rows]
    return said, [(row["id"], row["fault"], row["success"]) for row in rows]


def test_half_of_every_meaning_is_kept_and_no_turn_of_phrase_is_lost_everywhere():
    """Of four wordings two; of nine last words five. Each of the four places is kept for four meanings."""
    places = []
    for k, broken in MEANINGS:
        kept = HALF.answers(k, broken)
        assert len(kept) == 2 and set(kept) < set(WHOLE.answers(k, broken))
        places += [WHOLE.answers(k, broken).index(text) for text in kept]
    assert np.bincount(places).tolist() == [4, 4, 4, 4]
    assert {len(HALF.last_words(s)) for s in (True, False)} == {5}
    assert {len(WHOLE.last_words(s)) for s in (True, False)} == {9}


def test_what_is_never_logged_is_spoken_live_as_often_as_the_rest():
    """800 logs hold 2 wordings of each answer; 4,000 live answers to "test battery" hold all 8, uniformly."""
    task = HelpDesk(unseen_wordings=True)
    logged = {m["content"] for row in task.rows(800, 5) for m in row["messages"] if m["role"] == "user"}
    for k, broken in MEANINGS:
        assert logged & set(WHOLE.answers(k, broken)) == set(HALF.answers(k, broken))
    lanes = list(range(4000))
    task.reset(lanes, lanes)
    heard = [r.messages[0].content for r in task.step(lanes, ["test battery"] * 4000)]
    for broken in (True, False):
        counts = [heard.count(text) for text in WHOLE.answers(0, broken)]
        assert chisquare(counts).pvalue > 1e-4


def test_outcomes_are_the_sums_of_the_rewards_that_were_logged():
    split = list(HelpDesk().rows(300, 1))
    whole = list(HelpDesk(outcome_at_end=True).rows(300, 1))
    assert plain(split) == plain(whole)
    for row, other in zip(split, whole, strict=True):
        rewards = [m["reward"] for m in row["messages"] if m["role"] == "assistant"]
        assert other["outcome"] == pytest.approx(math.fsum(rewards), abs=1e-15)
        assert not any("reward" in m for m in other["messages"])
    read = read_logs(whole)
    assert {d.rated_by for d in read} == {"outcome"}
    same = [d.undiscounted_return() for d in read_logs(split)]
    assert [d.undiscounted_return() for d in read] == pytest.approx(same, abs=1e-12)


def test_the_behaviour_is_worth_the_same_under_every_setting():
    """6,000 logs: the mean return lies within 3 standard errors of the exact value."""
    logs = read_logs(list(HelpDesk(unseen_wordings=True, outcome_at_end=True).rows(6000, 2)))
    returns = [d.undiscounted_return() for d in logs]
    error = np.std(returns) / math.sqrt(len(returns))
    assert np.mean(returns) == pytest.approx(behavior_value(), abs=3 * error)


@pytest.mark.parametrize("said", [["test 0", "test 1", "fix 2"], ["hm"] * HORIZON], ids=["a fix", "silence"])
def test_live_the_whole_return_is_paid_at_the_end(said):
    """Two tests and a fix: -.1 + or - 1. Eight turns of nothing: -.4."""
    said = [w if w == "hm" else wordings(Act(w.split()[0], int(w.split()[1])))[0] for w in said]
    split, whole = HelpDesk(), HelpDesk(outcome_at_end=True)
    for desk in (split, whole):
        desk.reset([0, 3], [1, 2])
    paid = [desk.step([3], [text])[0] for text in said for desk in (split, whole)]
    rewards, late = [r.reward for r in paid[::2]], [r.reward for r in paid[1::2]]
    assert late[:-1] == [0.0] * (len(said) - 1)
    assert late[-1] == pytest.approx(math.fsum(rewards), abs=1e-15) != 0
    whole.reset([3], [5])  # a lane that begins anew owes nothing
    assert whole.step([3], [wordings(Act("fix", 0))[0]])[0].reward in (1.0, -1.0)


def test_acts_stand_on_every_message_and_are_what_was_meant():
    names = {str(act) for act in ACTS}
    for row in HelpDesk(acts=True).rows(200, 4):
        first, *rest = row["messages"]
        assert first["act"] == "complaint"
        for m in rest:
            if m["role"] == "assistant":
                assert m["act"] == str(read_act(m["content"])) and m["act"] in names
            elif (heard := read_answer(m["content"])) is not None:
                assert m["act"] == f"{PARTS[heard[0]]} {'broken' if heard[1] else 'fine'}"
            else:
                assert m["act"] == ("solved" if row["success"] else "unsolved")
    assert not any("act" in m for row in HelpDesk().rows(20, 4) for m in row["messages"])


def test_the_live_customer_says_its_acts_if_asked():
    desk, silent = HelpDesk(acts=True), HelpDesk()
    for task in (desk, silent):
        ((opening,),) = task.reset([0], [9])
        (answer,) = task.step([0], ["Please test the camera"])
        (lost,) = task.step([0], ["Please sing"])
        (last,) = task.step([0], ["We repair the camera"])
        heard = [opening.act, answer.messages[0].act, lost.messages[0].act, last.messages[0].act]
        if task is silent:
            assert heard == [None] * 4
        else:
            assert heard[0] == "complaint" and heard[2] == "confused"
            assert heard[1] in ("camera broken", "camera fine") and heard[3] in ("solved", "unsolved")


def test_no_setting_moves_what_is_known_and_its_words_find_the_task_again():
    assert HelpDesk().settings == {} and isinstance(HelpDesk(), HasSettings)
    for key in KEYS:
        task = find_task("helpdesk", {key: True})
        assert task.words == f"helpdesk {key}=true"
        assert task_called(task.words).words == task.words
        assert next(task.rows(1, 0))["turnwise_task"] == task.words
        assert task.references() == HelpDesk().references()
        assert find_task("helpdesk", {key: False}).words.split()[0] == "helpdesk"


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", ["end", 1, None])
def test_a_setting_is_true_or_false(key, value):
    with pytest.raises(SettingError, match=f"{key}.*expected true or false"):
        HelpDesk(**{key: value})
