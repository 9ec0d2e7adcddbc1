"""The lane loop: what is recorded of a conversation, in which order, and how it ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from turnwise.data.batch import pack_tokens
from turnwise.envs.tasks.helpdesk.rules import PARTS
from turnwise.envs.tasks.helpdesk.task import HelpDesk
from turnwise.envs.tasks.helpdesk.words import read_act
from turnwise.models.lm.policies import LmPolicy
from turnwise.rollout.conversations import Conversation, converse, episode_seed
from turnwise.rollout.engines.protocol import Utterance
from turnwise.rollout.engines.sampler import Sampler

LOGP = -0.5


@dataclass
class Desk:
    """A scripted desk behind `LaneModel`: says its lines one after another, whatever it hears.

    Lanes finish in an order of their own: one utterance per call, the lane with the highest number first.
    """

    chat: Any
    lines: Sequence[str]
    speaking: dict[int, int] = field(default_factory=dict)
    said: dict[int, int] = field(default_factory=dict)
    heard: dict[int, list[int]] = field(default_factory=dict)

    def reset(self, lane: int, seed: int) -> None:
        self.said[lane], self.heard[lane] = 0, []

    def submit(self, lane: int, ids: Sequence[int]) -> None:
        self.heard[lane] += ids
        self.speaking[lane] = self.said[lane]
        self.said[lane] += 1

    def collect(self) -> list[Utterance]:
        lane = max(self.speaking)
        line = self.lines[self.speaking.pop(lane) % len(self.lines)]
        ids = (*self.chat.tokenizer.encode(line, add_special_tokens=False), self.chat.stop)
        return [Utterance(lane, ids, (LOGP,) * len(ids), stopped=True, out_of_context=False)]


TESTS_THEN_FIX = ("Please test the battery.", "Now try the camera.", "Just swap the screen.")


def test_the_record_is_what_encoding_the_text_gives(chat: Any) -> None:
    """Where the text of an utterance becomes the same ids again, a held conversation and a logged one with
    the same words are the same tokens, actions, turn ends, rewards and end. (Behind a true end the lane may
    have read where the agent would have spoken next; nothing depends on that.)"""
    held = converse(Desk(chat, TESTS_THEN_FIX), HelpDesk(), chat, episodes=range(8), seed=1, lanes=3)
    for c, logged in zip(held, chat.encode([c.dialogue for c in held]), strict=True):
        assert [m.content for m in c.dialogue.turns] == list(TESTS_THEN_FIX)
        assert c.tokens.ids[len(logged) :].tolist() in ([], chat.opening([]))
        for name in ("ids", "action", "turn_end", "rewards"):
            record = getattr(c.tokens, name)[: len(logged)]
            np.testing.assert_array_equal(record, getattr(logged, name), err_msg=name)
        assert not c.tokens.action[len(logged) :].any()
        assert c.tokens.terminated
        assert c.tokens.next_known
        assert c.tokens.id == logged.id == str(c.episode)


def test_rewards_and_log_probabilities_stand_where_turns_end(chat: Any) -> None:
    """Two tests and a fix earn -.05, -.05 and +1 or -1; a turn of n tokens at -.5 each has log-prob -n/2."""
    (c,) = converse(Desk(chat, TESTS_THEN_FIX), HelpDesk(), chat, episodes=[4], seed=1, lanes=1)
    t, ends = c.tokens, np.flatnonzero(c.tokens.turn_end)
    last = 1.0 if c.hidden["fault"] == "screen" else -1.0
    np.testing.assert_array_equal(t.rewards[ends], [-0.05, -0.05, last])
    assert (t.ids[ends] == chat.stop).all()
    np.testing.assert_array_equal(t.token_logp[t.action], LOGP)
    lengths = [len(chat.tokenizer.encode(line, add_special_tokens=False)) + 1 for line in TESTS_THEN_FIX]
    np.testing.assert_allclose(t.message_logp[ends], LOGP * np.array(lengths))
    np.testing.assert_allclose([m.behavior_logp for m in c.dialogue.turns], LOGP * np.array(lengths))
    assert t.action.sum() == sum(lengths)
    assert c.info["success"] == (last == 1)
    assert c.dialogue.undiscounted_return() == pytest.approx(last - 0.1)


def test_the_model_has_read_what_is_recorded(chat: Any) -> None:
    """All ids that were not the agent's own went to it, up to its last turn, in order."""
    desk = Desk(chat, TESTS_THEN_FIX)
    (c,) = converse(desk, HelpDesk(), chat, episodes=[0], seed=2, lanes=1)
    last = np.flatnonzero(c.tokens.action)[-1]
    assert desk.heard[0] == c.tokens.ids[:last][~c.tokens.action[:last]].tolist()


def test_silence_at_the_horizon_is_a_true_end(chat: Any) -> None:
    """Eight tests and no last word: the record ends with the agent's stop token, and is terminated."""
    (c,) = converse(Desk(chat, TESTS_THEN_FIX[:1]), HelpDesk(), chat, episodes=[0], seed=0, lanes=1)
    assert len(c.dialogue.turns) == 8
    assert c.dialogue.messages[-1].role == "assistant"
    assert c.tokens.turn_end[-1]
    batch = pack_tokens([c.tokens], gamma=1.0)
    assert batch.discounts[0, -1] == 0
    assert batch.loss_mask.all()


@pytest.mark.parametrize("lanes", [1, 3, 5, 20])
def test_every_episode_comes_back_in_the_order_asked(lanes: int, chat: Any) -> None:
    """Whatever the lanes and the order in which they end; an episode's partner is that of its number."""
    episodes = [11, 3, 7, 0, 12, 5, 4]
    seen: list[int] = []
    held = converse(
        Desk(chat, TESTS_THEN_FIX),
        HelpDesk(),
        chat,
        episodes=episodes,
        seed=1,
        lanes=lanes,
        progress=seen.append,
    )
    assert [c.episode for c in held] == episodes
    assert seen == sorted(set(seen))
    assert seen[-1] == len(episodes)
    task = HelpDesk()
    for c in held:
        (opening,) = task.reset([0], [episode_seed(1, c.episode, 1)])
        assert c.dialogue.messages[0] == opening[0]
        assert c.hidden == task.hidden(0)


def test_seeds_of_agent_and_partner_differ() -> None:
    seeds = {episode_seed(s, e, who) for s in range(3) for e in range(50) for who in (0, 1)}
    assert len(seeds) == 300


def cut_conversations(lm: Any, chat: Any, context: int, **options: Any) -> list[Conversation]:
    sampler = Sampler(LmPolicy(lm), lanes=4, context=context, stop=chat.stop, **options)
    held = converse(sampler, HelpDesk(), chat, episodes=range(12), seed=0, lanes=4)
    return [c for c in held if not c.dialogue.terminated]


def test_a_turn_that_the_context_cuts_is_truncated(tiny: Callable[..., Any], chat: Any) -> None:
    """The row fills the context exactly; its last action ended no turn and earned nothing; the state after
    it is the last position, whose value the last action bootstraps from and is learnt with."""
    cut = [c for c in cut_conversations(tiny(), chat, 60, max_new_tokens=100) if c.tokens.action[-1]]
    assert len(cut) >= 5
    for c in cut:
        t = c.tokens
        assert len(t) == 60
        assert t.next_known
        assert not t.turn_end[-1]
        assert t.rewards[-1] == 0
        assert np.isnan(t.message_logp[-1])
        batch = pack_tokens([t], gamma=0.9)
        assert batch.decisions[0, -1] == 59
        assert batch.discounts[0, -1] == 1
        assert batch.loss_mask.all()


def test_a_partner_whom_the_context_cuts_off(tiny: Callable[..., Any], chat: Any) -> None:
    """Turns of at most five tokens, a context of 80: his words are recorded whole, the agent's last turn is
    complete, and the state after it is where the agent would have spoken."""
    cut = [c for c in cut_conversations(tiny(), chat, 80, max_new_tokens=5) if not c.tokens.action[-1]]
    assert len(cut) >= 5
    for c in cut:
        t, header = c.tokens, chat.opening([])
        last = np.flatnonzero(t.action)[-1]
        assert t.turn_end[last]
        assert t.next_known
        assert t.ids[-len(header) :].tolist() == header
        assert len(t) >= 80 > last
        batch = pack_tokens([t], gamma=0.9)
        assert batch.decisions[0, -1] == len(t) - 1
        assert batch.discounts[0, -1] == pytest.approx(0.9)
        assert batch.loss_mask.all()


def test_a_stop_that_was_not_said_is_read_and_is_no_action(tiny: Callable[..., Any], chat: Any) -> None:
    """Turns cut at three tokens: the third ends the turn and has its reward, the stop token comes after."""
    sampler = Sampler(LmPolicy(tiny()), lanes=4, context=160, stop=chat.stop, max_new_tokens=3)
    forced = 0
    for c in converse(sampler, HelpDesk(), chat, episodes=range(6), seed=0, lanes=4):
        t = c.tokens
        for end in np.flatnonzero(t.turn_end):
            if t.ids[end] != chat.stop:
                forced += 1
                assert t.action[end - 2 : end + 1].all()
                assert t.rewards[end] != 0
                assert t.ids[end + 1] == chat.stop
                assert not t.action[end + 1]
    assert forced > 20


def test_what_cannot_be_read_is_an_answer_like_any_other(tiny: Callable[..., Any], chat: Any) -> None:
    """Noise costs .05 a turn and never stops the loop."""
    sampler = Sampler(LmPolicy(tiny(context=300)), lanes=3, context=300, stop=chat.stop, max_new_tokens=4)
    for c in converse(sampler, HelpDesk(), chat, episodes=range(5), seed=8, lanes=3):
        assert c.dialogue.terminated
        assert c.hidden["fault"] in PARTS
        for m in c.dialogue.turns:
            if read_act(m.content).kind == "none":
                assert m.reward == -0.05
