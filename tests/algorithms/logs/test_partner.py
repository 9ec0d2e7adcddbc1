"""A partner from logs: its loss by hand, which words it learns, and that it learns to answer, end and pay."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from turnwise.algorithms.logs import bc, partner
from turnwise.data.batch import pack_tokens
from turnwise.data.chat.format import ChatFormat
from turnwise.data.dialogue import Dialogue
from turnwise.data.other_side import turned
from turnwise.data.rows import token_rows
from turnwise.data.tokens import Tokens, TokenWriter
from turnwise.envs.dialogue import Message
from turnwise.losses.value import ending_loss
from turnwise.models.lm.fresh import llama, train_tokenizer
from turnwise.models.lm.partner import Minibatch, PartnerModel, Told, minibatch
from turnwise.models.lm.policies import LmPolicy
from turnwise.run.training import TrainingRun

f64 = torch.float64


def row(turns: list[tuple[list[int], float]], *, terminated: bool) -> Tokens:
    """Before each turn two tokens are read."""
    writer = TokenWriter()
    for ids, reward in turns:
        writer.read([1, 2])
        writer.act(ids, reward, None)
    if not terminated:
        writer.read([1])
    return writer.tokens(terminated=terminated, next_known=True, id="")


def test_the_end_by_hand():
    """At logit 0 either costs ln 2; at ln 3 it is over with probability 3/4."""
    logits = torch.tensor([[0.0, 0.0, math.log(3), math.log(3)]], dtype=f64)
    over = torch.tensor([[True, False, True, False]])
    expected = [math.log(2), math.log(2), -math.log(0.75), -math.log(0.25)]
    assert_close(ending_loss(logits, over), torch.tensor([expected], dtype=f64))


class Fixed(nn.Module):
    """Says the same wherever it is asked."""

    def __init__(self, told: Told):
        super().__init__()
        self.told = told

    def forward(self, batch: Any) -> Told:
        return self.told


def test_the_loss_by_hand():
    """Two turns, of 2 tokens and of 1, and an end. Every token costs 0.5 nats: 1.5. Behind the turns the end
    has probability 1/2: 2 ln 2. Rewards -1 and 3 have mean 1 and deviation 2, so -1 and 1 are to be told; 0
    and 0.5 are: 1 + 0.25. By 4 with weights 1, 2 and 3: (1.5 + 4 ln 2 + 3.75) / 4."""
    x = minibatch([row([([3, 9], -1.0), ([9], 3.0)], terminated=True)], f64)
    assert x.stops.tolist() == [[False, True, True]]
    told = Told(
        logp=torch.full((1, 3), -0.5, dtype=f64),
        end=torch.tensor([[7.0, 0.0, 0.0]], dtype=f64),  # inside a turn it says nothing
        reward=torch.tensor([[7.0, 0.0, 0.5]], dtype=f64),
    )
    c = partner.Config(end_weight=2.0, reward_weight=3.0)
    found, sums = partner.loss(Fixed(told), x, torch.tensor([1.0, 2.0], dtype=f64), 4.0, c)
    assert_close(found, torch.tensor((1.5 + 4 * math.log(2) + 3.75) / 4, dtype=f64))
    assert_close(sums["reward_loss"], torch.tensor(1.25, dtype=f64))
    assert int(sums["decisions"]) == 3


def test_a_cut_conversation_is_not_over():
    """Its last turn is followed by other words: an end there would be learnt wrongly."""
    x = minibatch([row([([3, 9], 0.0)], terminated=False)], f64)
    assert x.stops.tolist() == [[False, True]] and x.batch.discounts.tolist() == [[1.0, 1.0]]


# -- whose words ---------------------------------------------------------------------------------------

TALK = Dialogue(
    (
        Message("user", "is it red?"),
        Message("assistant", "it is blue", 0.5),
        Message("user", "bye"),
        Message("assistant", "good bye", 1.0),
    ),
)


def felt(loss: Tensor, seen: list[Tensor]) -> Tensor:
    """[T], how much each position of the trunk's output feels the loss."""
    (gradient,) = torch.autograd.grad(loss, seen)
    return gradient[0].abs().amax(-1)


def test_neither_side_learns_the_words_of_the_other():
    """What the trunk makes of a position feels the loss only where a token of one's own side follows; and,
    for the partner, at its stop tokens, where the end and the reward are read. So no word of the other side,
    and no marker, is ever predicted."""
    chat = ChatFormat(train_tokenizer([m.content for m in TALK.messages] * 5, 300, 64))
    torch.manual_seed(0)
    V = len(chat.tokenizer)
    model = PartnerModel(llama(V, width=8, layers=1, heads=2, context=64, eos=chat.stop, pad=1).double())
    for head in (model.end, model.reward):
        nn.init.normal_(head.double().weight)
    found: list[Tensor] = []
    trunk: Any = model.policy.lm.base_model
    handle = trunk.register_forward_hook(lambda *x: found.append(x[2].last_hidden_state))
    (mine,), (its,) = chat.encode([TALK]), chat.encode([turned(TALK)])
    agent_loss = bc.loss(
        bc.Objective(model.policy), pack_tokens([mine], gamma=1.0, dtype=f64), 1.0, bc.Config()
    )
    feels = felt(agent_loss[0], found[-1:]) > 0
    assert feels[:-1].tolist() == mine.action[1:].tolist()
    x = minibatch([its], f64)
    partner_loss = partner.loss(model, x, model.scale.double(), 1.0, partner.Config())
    feels = felt(partner_loss[0], found[-1:]) > 0
    predicts = torch.tensor([*its.action[1:].tolist(), False])
    assert torch.equal(feels, predicts | torch.tensor(its.turn_end))
    handle.remove()


# -- learning ------------------------------------------------------------------------------------------


def shop(n: int) -> list[Dialogue]:
    """Asked for tea it says yes, for coffee no; `pay` ends the talk in silence, and earns 2 or -1."""
    found = []
    for i in range(n):
        tea = i % 2 == 0
        asked, answer = ("tea?", "yes") if tea else ("coffee?", "no")
        found.append(
            Dialogue(
                (
                    Message("user", "hello"),
                    Message("assistant", asked, 0.0),
                    Message("user", answer),
                    Message("assistant", "pay", 2.0 if tea else -1.0),
                ),
                id=str(i),
            )
        )
    return found


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> tuple[PartnerModel, ChatFormat]:
    talks = shop(64)
    chat = ChatFormat(train_tokenizer([m.content for d in talks for m in d.messages], 300, 64))
    torch.manual_seed(1)
    V = len(chat.tokenizer)
    model = PartnerModel(
        llama(V, width=24, layers=1, heads=2, context=64, eos=chat.stop, pad=1), mean=0.25, std=1.0
    )
    rows = token_rows([turned(d) for d in talks], chat, 64)
    run = TrainingRun(Path(tmp_path_factory.mktemp("partner")), what="partner", quiet=True)
    c = partner.Config(epochs=100, batch_size=16)
    return partner.train(c, rows, [], model, run, 0), chat


@pytest.mark.parametrize(
    ("place", "logged", "wrong", "earned"), [(0, "yes", "no", 2.0), (1, "no", "yes", -1.0)]
)
def test_it_learns_to_answer_to_end_and_to_pay(
    learnt: tuple[PartnerModel, ChatFormat], place: int, logged: str, wrong: str, earned: float
):
    """By hand every token is certain, no turn but the silent one ends a talk, and that earns 2 or -1."""
    model, chat = learnt
    x = minibatch([chat.encode([turned(shop(2)[place])])[0]])
    with torch.no_grad():
        told = model(x.batch)
    stops = x.stops[0]
    assert told.logp.exp().min() > 0.9
    ends, paid = told.end[0][stops].sigmoid(), model.paid(told.reward)[0][stops]
    assert_close(ends, torch.tensor([0.0, 0.0, 1.0]), rtol=0, atol=0.1)
    assert_close(paid, torch.tensor([0.0, 0.0, earned]), rtol=0, atol=0.15)
    other = Dialogue((*shop(2)[place].messages[:2], Message("user", wrong)), terminated=False)
    y = minibatch([chat.encode([turned(other)])[0]])
    assert isinstance(y, Minibatch)
    with torch.no_grad():  # the wrong answer: its first token is hardly possible
        first = int(y.stops[0].nonzero()[0, 0]) + 1
        assert model(y.batch).logp[0, first].exp() < 0.1


def test_a_policy_reads_the_same_rows():
    """The words' part is the clone's loss on turned rows: to 1e-12 what bc computes."""
    torch.manual_seed(2)
    model = PartnerModel(llama(12, width=8, layers=1, heads=2, context=64, eos=9, pad=0).double())
    rows = [row([([3, 9], 1.0), ([4, 5, 9], 0.0)], terminated=True), row([([9], 0.0)], terminated=False)]
    c = partner.Config(end_weight=0.0, reward_weight=0.0)
    mine = partner.loss(model, minibatch(rows, f64), model.scale.double(), 3.0, c)[0]
    policy: LmPolicy = model.policy
    same = bc.loss(bc.Objective(policy), pack_tokens(rows, gamma=1.0, dtype=f64), 3.0, bc.Config())[0]
    assert_close(mine, same, rtol=0, atol=1e-12)
