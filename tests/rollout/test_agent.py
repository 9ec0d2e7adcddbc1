"""What an agent thinks of a conversation that was held, and what it replies to one."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from turnwise.data.tokens import TokenWriter
from turnwise.envs.dialogue import Message
from turnwise.envs.tasks.helpdesk.task import HelpDesk
from turnwise.evaluation.measures.shifts import measure_shift
from turnwise.models.lm.critics import TokenCritic, TurnCritic
from turnwise.models.lm.fresh import llama
from turnwise.models.lm.parts import trunk_of
from turnwise.rollout.agent import Agent
from turnwise.rollout.conversations import converse, episode_seed
from turnwise.run.errors import InputError

CONTEXT = 160


def test_a_last_message_beyond_the_context_is_not_read(tiny: Callable[..., Any], chat: Any) -> None:
    """GPT-2 has no position after its last: the partner's words that ended the conversation do not fit."""
    lm = tiny("gpt2")
    heard, said = list(range(5, 155)), [9, 10, chat.stop]

    def held(after: int) -> dict[str, np.ndarray]:
        row = TokenWriter()
        row.read(heard)
        row.act(said, 1.0, None)
        row.read([7] * after)
        return dict(
            Agent(lm, chat.tokenizer).values(row.tokens(terminated=False, next_known=True, id="held"))
        )

    long = held(40)
    assert len(heard) + len(said) <= CONTEXT < len(heard) + len(said) + 40
    with torch.inference_mode():
        logp = lm(torch.tensor([heard + said])).logits.log_softmax(-1)[0]
    expected = [float(logp[len(heard) + k - 1, token]) for k, token in enumerate(said)]
    np.testing.assert_allclose(long["logp"], expected, rtol=0, atol=1e-10)


def critic_of(kind: str, tiny: Callable[..., Any]) -> TokenCritic | TurnCritic | None:
    """A critic whose heads disagree with one another and with the policy, in float64."""
    if kind == "no critic":
        return None
    lm = tiny(seed=1)
    torch.manual_seed(2)
    if kind.startswith("token critic"):
        critic: TokenCritic | TurnCritic = TokenCritic(trunk_of(lm), 32, lm.config.vocab_size)
    else:
        critic = TurnCritic(trunk_of(lm), 32)
    with torch.no_grad():
        for head in critic.q:
            head.out.weight.normal_()
    return critic.double()


@pytest.mark.parametrize("kind", ["no critic", "token critic", "token critic, choosing", "turn critic"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_reply_is_what_the_lanes_say(
    kind: str, temperature: float, tiny: Callable[..., Any], chat: Any
) -> None:
    """With the seed of a lane, one call says what the lane loop said in the first turn of a conversation,
    whatever the number of lanes; greedily, so does any seed."""
    agent = Agent(tiny(), chat.tokenizer, critic_of(kind, tiny)).with_acting(
        temperature=temperature, beta=1.0, proposals=1 if kind == "token critic" else 3, max_new_tokens=12
    )
    model = agent.lane_model(3, agent.chat.stop)
    held = converse(model, HelpDesk(), agent.chat, episodes=range(6), seed=4, lanes=3)
    replies = []
    for c in held:
        first = next(i for i, m in enumerate(c.dialogue.messages) if m.role == "assistant")
        asked = c.dialogue.messages[:first]
        replies.append(agent.reply(asked, seed=episode_seed(4, c.episode, 0)))
        assert replies[-1] == c.dialogue.messages[first].content
        if temperature == 0 and not agent.reranks:
            assert agent.reply([{"role": m.role, "content": m.content} for m in asked]) == replies[-1]
    assert len(set(replies)) > 1 or temperature == 0


def test_a_critic_of_tokens_chooses_by_the_value_of_the_whole(tiny: Callable[..., Any], chat: Any) -> None:
    """What it knows of a proposal is min Q at its last token, as one pass over all that was said finds it;
    beyond measure strong, it says the best of those that it was asked about. No token is shifted: the
    recorded log-probabilities are the language model's own, and `shift` is of the choice."""
    agent = Agent(tiny(), chat.tokenizer, critic_of("token critic", tiny)).with_acting(
        beta=1e9, proposals=4, max_new_tokens=7
    )
    model: Any = agent.lane_model(3, chat.stop)
    asked, score = [], model.score

    def recorded(features: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        asked.append(score(features, last))
        return asked[-1]

    model.score = recorded
    held = converse(model, HelpDesk(), chat, episodes=range(6), seed=4, lanes=3)
    said, cut = [], 0
    for c in held:
        values = agent.values(c.tokens)
        assert "shift" not in values
        chosen = c.tokens.decisions + 1
        np.testing.assert_allclose(c.tokens.token_logp[chosen], values["logp"], rtol=0, atol=1e-10)
        ends = c.tokens.turn_end[chosen]
        said += values["q"][ends].tolist()
        cut += int((c.tokens.ids[chosen][ends] != chat.stop).sum())
    best = [float(q.max()) for q in asked]
    assert 0 < cut < len(said) and min(float(q.std()) for q in asked if len(q) > 1) > 1e-6
    np.testing.assert_allclose(sorted(said), sorted(best), rtol=0, atol=1e-9)
    shift = measure_shift(agent, [c.tokens for c in held])
    assert shift is not None and shift["per"] == "turn" and shift["p95"] == pytest.approx(np.log(4))
    alone = agent.with_acting(proposals=1)
    assert not alone.reranks and "shift" in alone.values(held[0].tokens)


@pytest.mark.parametrize("name", ["own", "plain, spaced", "headers"])
def test_what_the_agent_said_before_is_read_as_the_lanes_wrote_it(name: str, tokenizers: Any) -> None:
    """The ids before the second turn are the opening, the first turn with its stop token, and what lanes
    read after it; the reply is the greedy continuation of them by passes without a cache."""
    tokenizer = tokenizers[name]
    torch.manual_seed(0)
    lm = llama(len(tokenizer), width=32, layers=2, heads=2, context=128, eos=0, pad=1)
    with torch.no_grad():
        for parameter in lm.parameters():
            parameter.mul_(3)
    agent = Agent(lm.double().eval(), tokenizer).with_acting(temperature=0.0, max_new_tokens=8)
    chat = agent.chat
    asked, said, again = (
        Message("user", "hello there, my friend"),
        Message("assistant", "ok then"),
        Message("user", "it 's n't ok ."),
    )
    spoken = tokenizer.encode(said.content, add_special_tokens=False)
    ids = [*chat.opening([asked]), *spoken, chat.stop, *chat.continuation([asked, said], [again])]
    new: list[int] = []
    with torch.inference_mode():
        while len(new) < 8 and (not new or new[-1] != chat.stop):
            new.append(int(lm(torch.tensor([ids + new])).logits[0, -1].argmax()))
    assert agent.reply([asked, said, again]) == chat.text(new)


def test_without_a_seed_replies_differ(tiny: Callable[..., Any], chat: Any) -> None:
    """Twenty tokens at temperature 1 from weights that are far from certain: ten calls, ten replies."""
    agent = Agent(tiny(), chat.tokenizer).with_acting(max_new_tokens=20)
    asked = [{"role": "user", "content": "My screen is black."}]
    assert len({agent.reply(asked) for _ in range(10)}) > 1
    assert len({agent.reply(asked, seed=3) for _ in range(10)}) == 1


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        (
            [{"role": "alien", "content": "Hello."}],
            "messages[0].role: expected one of system, user, assistant, tool",
        ),
        (
            [Message("user", "Hello."), {"role": "user"}],
            "messages[1].content: expected a string; found nothing",
        ),
        (["Hello."], "messages[0] is 'Hello.'; expected a mapping with role and content"),
        (
            "Hello.",
            "messages is 'Hello.'; expected a list of messages, each with role and content",
        ),
        (
            [Message("user", "Hello."), Message("assistant", "Hello.")],
            "messages[1].role is 'assistant'; expected the last message to be one that the agent answers",
        ),
        (
            [Message("user", "screen " * 200)],
            "which leaves no room for a reply in the model's context of 160; expected a shorter conversation",
        ),
    ],
)
def test_what_cannot_be_answered_is_refused(
    messages: Any, expected: str, tiny: Callable[..., Any], chat: Any
) -> None:
    with pytest.raises(InputError, match=re.escape(expected)):
        Agent(tiny(), chat.tokenizer).reply(messages)


def test_a_conversation_that_just_fits_is_answered(tiny: Callable[..., Any], chat: Any) -> None:
    """A conversation of 159 tokens leaves room for one token in a context of 160; one more is refused."""
    agent = Agent(tiny(), chat.tokenizer).with_acting(temperature=0.0)
    word = tokens_of(chat, " screen")
    assert len(word) == 1
    length = len(chat.opening([Message("user", "screen")]))
    fits = Message("user", " ".join(["screen"] * (160 - length)))
    assert len(chat.opening([fits])) == 159
    with torch.inference_mode():
        best = int(agent.lm(torch.tensor([chat.opening([fits])])).logits[0, -1].argmax())
    assert agent.reply([fits]) == chat.text([best])
    with pytest.raises(InputError, match="the conversation has 160 tokens"):
        agent.reply([Message("user", fits.content + " screen")])


def test_the_format_of_messages_is_made_once(tiny: Callable[..., Any], chat: Any) -> None:
    """Making it renders the template a dozen times."""
    agent = Agent(tiny(), chat.tokenizer)
    assert agent.chat is agent.chat


def tokens_of(chat: Any, text: str) -> list[int]:
    return chat.tokenizer.encode(text, add_special_tokens=False)
