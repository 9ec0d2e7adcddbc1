"""A language model in the partner's place, at the negotiation table."""

from __future__ import annotations

import itertools

import pytest
import torch

from turnwise.envs.dialogue import Message
from turnwise.envs.tasks.negotiation.game import SELECTION, NegotiationTable
from turnwise.envs.tasks.negotiation.scenarios import Scenario, one_of
from turnwise.envs.tasks.table import Against
from turnwise.models.lm.fresh import llama, train_tokenizer
from turnwise.rollout.agent import Agent
from turnwise.rollout.conversations import converse
from turnwise.rollout.partners.speakers import SpeakingModel

SCENARIO = Scenario(counts=(1, 2, 3), values_a=(1, 3, 1), values_b=(4, 0, 2))


def taking_one_of_each(counts, turns):
    return (1, 1, 1)


@pytest.fixture(scope="module")
def agent():
    tokenizer = train_tokenizer(["i want the book and the hats deal <selection>"] * 5, 320, 200)
    torch.manual_seed(0)
    lm = llama(len(tokenizer), width=16, layers=1, heads=2, context=200, eos=0, pad=1)
    return Agent(lm.double(), tokenizer).with_acting(max_new_tokens=6)


def game(agent):
    return Against(NegotiationTable(taking_one_of_each, 6, draw=one_of([SCENARIO])), SpeakingModel(agent))


def test_games_are_played_to_their_end_and_do_not_depend_on_the_lanes(agent):
    played = []
    for lanes in (2, 5):
        chat = agent.chat
        model = agent.lane_model(lanes, chat.stop)
        played.append(converse(model, game(agent), chat, episodes=range(7), seed=4, lanes=lanes))
    for one, two in zip(*played, strict=True):
        assert [(m.role, m.content) for m in one.dialogue.messages] == [
            (m.role, m.content) for m in two.dialogue.messages
        ]
        assert one.dialogue.terminated and not one.info["agreed"]
        roles = [m.role for m in one.dialogue.messages]
        assert roles[0] == "system" and sum(r != "system" for r in roles) <= 6
        assert all(a != b for a, b in itertools.pairwise(roles))


def test_closing_pays_what_the_reading_gives_the_agent(agent):
    """One of each of (1, 3, 1) is 5 points; the other side keeps (0, 1, 2) of (4, 0, 2), 4 points.

    Taking both hats instead would give the agent 8 and cost the other nothing: not Pareto-optimal.
    """
    task = game(agent)
    task.reset([0], [11])
    (response,) = task.step([0], [SELECTION])
    assert response.terminated and response.reward == 5
    assert response.info["partner_points"] == 4
    assert response.info["agreed"] and not response.info["pareto"]


def test_a_partner_out_of_context_truncates(agent):
    """The partner's memory holds 200 tokens; long words of ours fill it."""
    task = game(agent)
    task.reset([0], [1])
    (response,) = task.step([0], ["book " * 300])
    assert response.truncated and not response.terminated and response.reward == 0


def test_notes_reach_the_agent_with_what_the_partner_said(agent):
    """One of each is worth 5 to the agent; each answer of the partner brings that note after it."""
    table = NegotiationTable(taking_one_of_each, 6, notes=True, draw=one_of([SCENARIO]))
    task = Against(table, SpeakingModel(agent))
    task.reset([0], [11])
    (response,) = task.step([0], ["i want the book"])
    assert [m.role for m in response.messages] == ["user", "tool"]
    assert response.messages[1].content == "worth 5"


def test_it_takes_up_a_talk_in_the_middle(agent):
    """In a fresh lane it says what the agent itself says after all of it, its own earlier words included."""
    talk = [Message("system", "book 1"), Message("user", "the hats"), Message("assistant", "deal")]
    talk += [Message("user", "i want the book")]
    speaker = SpeakingModel(agent)
    speaker.reset(range(3), [7, 8, 9])
    assert speaker.answer(range(3), [talk] * 3) == [agent.reply(talk, seed) for seed in (7, 8, 9)]


def test_a_talk_that_is_full_when_it_is_taken_up_has_no_answer(agent):
    """The memory holds 200 tokens. A neighbour with a short talk is answered."""
    long = [Message("user", "the hats"), Message("assistant", "book " * 300), Message("user", "deal")]
    short = [Message("user", "the hats"), Message("assistant", "book"), Message("user", "deal")]
    speaker = SpeakingModel(agent)
    speaker.reset(range(2), [7, 8])
    assert speaker.answer(range(2), [long, short]) == [None, agent.reply(short, 8)]
