"""The built-in negotiation: logs with exact propensities, the live task, and the corpus in its place."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from turnwise.envs.dialogue import Message
from turnwise.envs.tasks.negotiation import exact
from turnwise.envs.tasks.negotiation.game import SELECTION, read_system_message
from turnwise.envs.tasks.negotiation.scenarios import points, remainder
from turnwise.envs.tasks.negotiation.script import ScriptedNegotiator, act_probabilities, turns_of
from turnwise.envs.tasks.negotiation.task import Negotiation
from turnwise.envs.tasks.negotiation.words import ACCEPT, read_act, read_deal, standing, wordings
from turnwise.run.errors import InputError, SettingError

ROWS = list(Negotiation().rows(3000, seed=1))


def messages_of(row: dict[str, Any]) -> list[Message]:
    return [Message(m["role"], m["content"]) for m in row["messages"]]


def agent_turns(row: dict[str, Any]) -> Iterator[tuple[list[Message], dict[str, Any]]]:
    """What the agent had seen, and what it said."""
    messages = messages_of(row)
    for i, m in enumerate(row["messages"]):
        if m["role"] == "assistant":
            yield messages[:i], m


def test_the_agents_points_are_its_last_reward_and_are_read_off_the_words() -> None:
    for row in ROWS[:500]:
        said = [m for _, m in agent_turns(row)]
        assert row["terminated"] and all(m["reward"] == 0 for m in said[:-1])
        turns = turns_of(messages_of(row))
        counts, values = tuple(row["counts"]), tuple(row["values"])
        share = read_deal(counts, turns) if turns[-1][1] == SELECTION else None
        assert row["agreed"] == (share is not None)
        assert said[-1]["reward"] == (points(values, share) if share else 0)
        theirs = points(tuple(row["partner_values"]), remainder(counts, share)) if share else 0
        assert row["partner_points"] == theirs


def test_every_message_carries_the_probability_of_that_very_sentence() -> None:
    """P(act) / number of its wordings, recomputed from what the agent had seen."""
    for row in ROWS[:500]:
        for number, (seen, said) in enumerate(agent_turns(row)):
            counts, values = read_system_message(seen[0].content)
            act = read_act(said["content"], counts)
            p = act_probabilities(counts, values, standing(counts, turns_of(seen)), number)[act]
            assert said["behavior_logp"] == pytest.approx(math.log(p / len(wordings(act, counts))))


def test_the_sentences_of_an_act_are_said_alike_often() -> None:
    """Acceptances in words: four wordings, each a quarter of them within four standard errors."""
    texts = wordings(ACCEPT, (1, 2, 2))
    said = [m["content"] for row in ROWS for _, m in agent_turns(row) if m["content"] in texts]
    n = len(said)
    shares = [said.count(text) / n for text in texts]
    assert n > 400 and max(abs(s - 0.25) for s in shares) < 4 * math.sqrt(0.25 * 0.75 / n)


def test_logs_earn_what_the_script_is_worth_exactly() -> None:
    """3,000 negotiations: within four standard errors of the value by backward induction."""
    returns = np.array([sum(m.get("reward", 0.0) for m in row["messages"]) for row in ROWS])
    partners = np.array([row["partner_points"] for row in ROWS])
    for found in (returns, partners):
        error = found.std(ddof=1) / math.sqrt(len(found))
        assert abs(found.mean() - exact.script_value()) < 4 * error
    assert error < 0.1


def test_logs_are_the_same_for_the_same_seed_whatever_their_number() -> None:
    assert list(Negotiation().rows(20, seed=1)) == ROWS[:20]
    assert next(Negotiation().rows(1, seed=2)) != ROWS[0]


def test_notes_say_what_closing_would_bring_and_closing_brings_it() -> None:
    task = Negotiation()
    lanes = list(range(40))
    openings = task.reset(lanes, lanes)
    spoken_to = [lane for lane, seen in zip(lanes, openings, strict=True) if len(seen) > 1]
    assert 8 < len(spoken_to) < 32  # the first word is drawn with even odds
    for lane in spoken_to:
        assert [m.role for m in openings[lane]] == ["system", "user", "tool"]
        (response,) = task.step([lane], [SELECTION])
        assert response.terminated and response.info["agreed"]
        assert openings[lane][-1].content == f"worth {response.reward:.0f}"
    quiet = Negotiation(notes=False)
    assert all(m.role != "tool" for seen in quiet.reset(lanes, lanes) for m in seen)
    assert all(m["role"] != "tool" for row in quiet.rows(20, 0) for m in row["messages"])


def test_a_policy_that_closes_at_the_first_offer_earns_its_exact_value() -> None:
    """1,500 games: within four standard errors."""
    task, lanes = Negotiation(), list(range(1500))
    returns = np.zeros(len(lanes))
    openings = task.reset(lanes, lanes)
    waiting = [lane for lane in lanes if len(openings[lane]) == 1]
    for lane in set(lanes) - set(waiting):
        returns[lane] = task.step([lane], [SELECTION])[0].reward
    task.step(waiting, ["No, think again."] * len(waiting))
    for lane, response in zip(waiting, task.step(waiting, [SELECTION] * len(waiting)), strict=True):
        returns[lane] = response.reward
    error = returns.std(ddof=1) / math.sqrt(len(returns))
    assert abs(returns.mean() - exact.first_offer_value()) < 4 * error < 0.4


def test_games_do_not_depend_on_their_neighbours() -> None:
    """The script against itself, alone and in company."""

    def played(lanes: list[int]) -> list[list[str]]:
        task, agent = Negotiation(), ScriptedNegotiator()
        seen = dict(zip(lanes, task.reset(lanes, lanes), strict=True))
        agent.reset(lanes, lanes)
        going, said = list(lanes), {lane: list[str]() for lane in lanes}
        while going:
            texts = agent.answer(going, [seen[lane] for lane in going])
            responses = task.step(going, [text or "" for text in texts])
            for lane, text, r in zip(list(going), texts, responses, strict=True):
                seen[lane] = (*seen[lane], Message("assistant", text or ""), *r.messages)
                said[lane] += [text or "", *(m.content for m in r.messages), str(r.reward)]
                if r.terminated:
                    going.remove(lane)
        return [said[lane] for lane in lanes]

    assert played([0, 1, 2, 3]) == [played([lane])[0] for lane in (0, 1, 2, 3)]


# One book worth 0, four hats worth 2, two balls worth 1 to this side; the partner's values are 4, 1 and 1.
TALK = "YOU: every hat for me , the others are yours . <eos> THEM: deal <eos> YOU: <selection>"
CORPUS = [
    f"1 0 4 2 2 1 {TALK} item0=0 item1=4 item2=0 <eos> reward=8 agree 1 4 4 1 2 1",
    "1 4 4 1 2 1 THEM: every hat for me , the others are yours . <eos> YOU: deal <eos> "
    "THEM: <selection> item0=1 item1=0 item2=2 <eos> reward=6 agree 1 0 4 2 2 1",
    f"1 0 4 2 2 1 {TALK} item0=0 item1=4 item2=0 <eos> reward=8 agree 1 4 4 1 2 1",
]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    (tmp_path / "data.txt").write_text("\n".join(CORPUS) + "\n")
    (tmp_path / "split_of_data_rows.txt").write_text("train\ntrain\ntest\n")
    return tmp_path


def test_with_the_corpus_scenarios_and_logs_are_those_of_people(corpus: Path) -> None:
    """The test split has one scenario, seen from either side; two training rows come in an order by seed."""
    task = Negotiation(corpus=corpus)
    seen = {messages[0].content for messages in task.reset(range(20), range(20))}
    assert seen == {"book 1 x 0 hat 4 x 2 ball 2 x 1", "book 1 x 4 hat 4 x 1 ball 2 x 1"}
    rows = list(task.rows(10, seed=0))
    assert sorted(row["id"] for row in rows) == ["deal-00001", "deal-00002"]
    assert len(list(task.rows(1, seed=0))) == 1
    assert [row["id"] for row in Negotiation(corpus=corpus, split="test").rows(5, 0)] == ["deal-00003"]
    assert task.references() == [] and Negotiation(partner=ScriptedNegotiator()).references() == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"corpus": "no/such/folder"}, "corpus is 'no/such/folder'; expected a folder with data.txt"),
        ({"split": "dev"}, "split is 'dev'; expected train, val or test"),
        ({"split": "val"}, "split is 'val'; expected a corpus beside it"),
        ({"partner": "runs/bc"}, "partner is 'runs/bc'; expected a speaker"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError) as error:
        Negotiation(**settings)
    assert message in str(error.value)


def test_a_broken_corpus_is_named_by_file_and_line(corpus: Path) -> None:
    with pytest.raises(SettingError, match="split is 'val'; expected a split that"):
        Negotiation(corpus=corpus, split="val")
    broken = corpus / "broken"
    broken.mkdir()
    (broken / "data.txt").write_text("1 0 4 2\n")
    (broken / "split_of_data_rows.txt").write_text("train\n")
    with pytest.raises(InputError, match=r"data.txt, line 1: expected"):
        Negotiation(corpus=broken)
