"""A partner from logs as a task: what it says, when it ends, what it pays, and how it breaks down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from turnwise.data.other_side import Scene, read_turn, turn_text
from turnwise.envs.dialogue import Message
from turnwise.evaluation.measures.conversations import conversation_summary
from turnwise.models.lm.fresh import llama, train_tokenizer
from turnwise.models.lm.partner import PartnerModel
from turnwise.rollout.agent import Acting, Agent
from turnwise.rollout.conversations import Conversation, converse
from turnwise.rollout.engines.protocol import Utterance
from turnwise.rollout.load import load, load_agent
from turnwise.rollout.partners.fitted import FittedPartner, Scenes, load_fitted
from turnwise.rollout.partners.fitted_task import CUT, FULL, FittedTask
from turnwise.run.errors import InputError

SCENES = Scenes((Scene(("shop",), {"want": "tea"}), Scene((), {"want": "milk"}, first=False)), (3, 1))


def partner(max_new_tokens: int = 300, end: float = -1.0, lowest: float = -1.0) -> FittedPartner:
    """Random words; a turn ends the talk with probability sigmoid(end), and earned 0.25 + 2 x 0.5 = 1.25."""
    tokenizer = train_tokenizer(["tea please", "milk", "which one", "shop"] * 5, 300, 512)
    torch.manual_seed(0)
    V = len(tokenizer)
    model = PartnerModel(llama(V, width=16, layers=1, heads=2, context=512, eos=0, pad=1), mean=0.25, std=2.0)
    with torch.no_grad():
        model.end.bias.fill_(end)
        model.reward.bias.fill_(0.5)
        # A word that is likelier than others: the stop token, so that turns are short.
        model.policy.lm.get_output_embeddings().weight[0] *= 3
    return FittedPartner(model.eval(), tokenizer, SCENES, lowest, 9.0, Acting(max_new_tokens=max_new_tokens))


def speaker() -> Agent:
    tokenizer = train_tokenizer(["tea please", "milk", "which one", "shop"] * 5, 300, 512)
    torch.manual_seed(1)
    lm = llama(len(tokenizer), width=16, layers=1, heads=2, context=4096, eos=0, pad=1)
    return Agent(lm, tokenizer).with_acting(max_new_tokens=3)


def talks(fitted: FittedPartner, lanes: int, n: int = 12) -> list[Conversation]:
    agent = speaker()
    model = agent.lane_model(lanes, agent.chat.stop)
    return converse(model, FittedTask(fitted), agent.chat, episodes=range(n), seed=4, lanes=lanes)


def said(held: list[Conversation]) -> list[list[tuple[str, str, float]]]:
    return [[(m.role, m.content, round(m.reward, 5)) for m in c.dialogue.messages] for c in held]


def test_talks_do_not_depend_on_the_lanes():
    assert said(talks(partner(), 2)) == said(talks(partner(), 5))


def test_it_pays_and_ends_as_its_heads_say():
    """Every answer pays 1.25, and ends the talk with probability 1/4 (logit -ln 3). 400 talks have about
    1,600 answers: four standard errors of the share of ends are 0.044."""
    held = talks(partner(end=-float(np.log(3))), 40, n=400)
    good = [c for c in held if not c.failed]
    answers = sum(len(c.dialogue.turns) for c in good)
    assert len(good) > 300 and all(m.reward == 1.25 for c in good for m in c.dialogue.turns)
    ended = sum(c.dialogue.terminated for c in good)
    assert ended == len(good)
    failed_answers = sum(len(c.dialogue.turns) for c in held if c.failed)
    assert abs(ended / (answers + failed_answers) - 0.25) < 0.05


def test_rewards_stay_within_those_that_were_logged():
    fitted = replace(partner(), highest=1.0)
    assert {m.reward for c in talks(fitted, 4) if not c.failed for m in c.dialogue.turns} == {1.0}


def test_scenes_come_as_often_as_they_were_logged_and_facts_stay_with_the_partner():
    """Three of four begin in the shop, where the partner has the first word; of 400, 300 with error 8.7."""
    task = FittedTask(partner())
    openings = task.reset(range(400), range(400))
    shop = [o for o in openings if o and o[0] == Message("system", "shop")]
    assert abs(len(shop) - 300) < 35 and all(len(o) >= 2 for o in shop)
    assert [o for o in openings if not o] == [()] * (400 - len(shop))
    wants = {tuple(task.hidden(lane).values()) for lane in range(400)}
    assert wants == {("tea",), ("milk",)}
    assert all("want" not in m.content for o in openings for m in o)
    assert Scenes.of([SCENES.scenes[1]] * 2 + [SCENES.scenes[0]]).counts == (2, 1)


def test_a_turn_that_never_stops_fails_the_talk_which_counts_for_nothing():
    """One token is hardly ever a whole turn. What failed has no reward and no end, and is counted apart; the
    mean is of the others. Three talks earn 1, 2 and 3, and one failed: the mean is 2, not 1.5."""
    held = talks(partner(max_new_tokens=1), 4)
    bad = [c for c in held if c.failed]
    assert len(bad) > 6
    for c in bad:
        assert not c.dialogue.terminated and c.dialogue.undiscounted_return() == c.dialogue.turns[
            0
        ].reward * (len(c.dialogue.turns) - 1)
        assert c.dialogue.turns[-1].reward == 0 and c.info["failed"]
    assert any(c.info["failed"] == CUT for c in bad)
    good = talks(partner(), 4)[:4]
    earns = [
        replace(
            c,
            failed=i == 3,
            dialogue=replace(c.dialogue, messages=(Message("assistant", "x", float(i + 1)),)),
        )
        for i, c in enumerate(good)
    ]
    found = conversation_summary(earns, 0)
    assert found["mean"] == 2.0 and found["failed"] == 1 and found["episodes"] == 3
    with pytest.raises(InputError, match="the partner failed in all 4 conversations"):
        conversation_summary([replace(c, failed=True) for c in earns], 0)


def test_a_talk_that_is_over_answers_no_more():
    task = FittedTask(partner(end=30.0))
    task.reset([0], [1])
    (response,) = task.step([0], ["which one"])
    assert response.terminated != response.failed
    with pytest.raises(ValueError, match="lane 0: the conversation is over"):
        task.step([0], ["hello"])


def test_it_takes_up_a_talk_as_it_would_have_heard_it():
    """What it says next is what the model says after the whole talk, turned round: the same ids, the same
    seed. Silence, and a turn that is cut, are no answer, and say nothing here. An opening without a word of
    the agent's is taken up too."""
    fitted = replace(partner(), scenes=Scenes((Scene(("shop",)),), (1,)))
    begun = (Message("system", "shop"), Message("user", "which one"))
    later = (*begun, Message("assistant", "tea"), Message("user", "milk"), Message("tool", "ok"))
    task, compared = FittedTask(fitted), 0
    lanes = range(12)
    task.take_up(lanes, lanes, [begun, later] * 6)
    for lane, response in zip(lanes, task.step(lanes, ["tea please"] * 12), strict=True):
        heard = [Message("system", "shop"), Message("assistant", "which one")]
        if lane % 2:
            heard += [Message("user", "tea"), Message("assistant", "milk\n[tool] ok")]
        own = int(np.random.default_rng(lane).integers(2**62))
        text = fitted.agent.reply([*heard, Message("user", "tea please")], own)
        if response.messages and not response.failed:
            assert turn_text(response.messages) == turn_text(read_turn(text))
            compared += 1
    assert compared > 5
    full = (*begun, Message("assistant", "tea " * 600), Message("user", "milk"))
    task = FittedTask(fitted)
    task.take_up([0], [0], [full])
    (response,) = task.step([0], ["tea"])
    assert response.failed and response.info["failed"] == FULL
    with pytest.raises(ValueError, match="facts that no talk shows"):
        FittedTask(partner()).take_up([0], [0], [begun])


def test_saved_it_says_the_same(tmp_path: Path):
    fitted = partner()
    fitted.save(tmp_path / "partner")
    again = load_fitted(tmp_path / "partner")
    assert said(talks(fitted, 3)) == said(talks(again, 3))
    assert again.scenes == fitted.scenes and (again.lowest, again.highest) == (-1.0, 9.0)
    assert isinstance(load(tmp_path / "partner"), FittedPartner)
    with pytest.raises(InputError, match="this is a partner from logs; expected the run of a policy"):
        load_agent(tmp_path / "partner")
    (tmp_path / "partner" / "heads.safetensors").unlink()
    with pytest.raises(InputError, match=r"heads\.safetensors"):
        load_fitted(tmp_path / "partner")


def test_heads_read_the_stop_token_itself(monkeypatch: pytest.MonkeyPatch):
    """The chance of the end is that of all ids, as they were read and sampled, at the last of them: the stop
    token of the partner's turn. The whole row is read at once here, and in the task piece by piece."""
    fitted = replace(partner(), scenes=Scenes((SCENES.scenes[1],), (1,)))
    nn.init.normal_(fitted.model.end.weight, std=3.0)
    task, spoken = FittedTask(fitted), dict[int, Utterance]()
    utter = task._speaker.utter

    def noted(lanes: Sequence[int], seen: Sequence[Sequence[Message]]) -> list[Utterance]:
        found = utter(lanes, seen)
        spoken.update(zip(lanes, found, strict=True))
        return found

    monkeypatch.setattr(task._speaker, "utter", noted)
    lanes, said = range(6), ["which one", "milk", "tea", "shop", "tea please", "a milk"]
    task.reset(lanes, lanes)
    task.step(lanes, said)
    chances, _ = task._judged(lanes)
    compared = 0
    for lane in lanes:
        if not spoken[lane].stopped:
            continue
        heard = fitted.agent.chat.opening([Message("system", "want: milk"), Message("user", said[lane])])
        ids = torch.tensor([[*heard, *spoken[lane].ids]])
        with torch.no_grad():
            h = fitted.model.policy.trunks[0](input_ids=ids).last_hidden_state[0, -1:]
        assert chances[lane] == pytest.approx(float(fitted.judged(h)[0][0]), abs=1e-5)
        compared += 1
    assert compared > 2 and len({round(x, 4) for x in chances.values()}) > 2
