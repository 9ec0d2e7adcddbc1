"""What a clone has learnt of the logged agent: how well it predicts its words, and what it says itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from turnwise.data.dialogue import Dialogue, spoken
from turnwise.data.feedback import Prompt
from turnwise.data.tokens import Tokens
from turnwise.envs.dialogue import Message
from turnwise.evaluation.measures.wording import measure_wording
from turnwise.models.lm.policies import LmPolicy
from turnwise.recipes.training.machine import Machine
from turnwise.rollout.agent import Agent
from turnwise.rollout.engines.decoding import Decoding
from turnwise.rollout.replies import has_room, sample_replies
from turnwise.run.folder import write_json

SHOWN = 8
"""places of conversations at which a clone is let speak"""
EACH = 2
"""replies of the clone at each of them"""


def judge_clone(
    agent: Agent,
    learnt: tuple[Sequence[Dialogue], Sequence[Tokens]],
    held: tuple[Sequence[Dialogue], Sequence[Tokens]],
    m: Machine,
) -> dict[str, Any]:
    """The entry `wording` of the result, also written as wording.json for the page, with what the clone says.

    `learnt` and `held`: conversations, and their rows. It warns if a bigram table predicts the agent better.
    """
    policy = LmPolicy(agent.lm)
    found = measure_wording(policy, learnt[1], held[1])
    if found.get("beaten"):
        m.warn(found["verdict"])
    said = sample_turns(agent, held[0] or learnt[0], m.seed)
    write_json(m.out / "wording.json", found | {"said": said, "held_out": bool(held[0])})
    return found


def sample_turns(agent: Agent, dialogues: Sequence[Dialogue], seed: int) -> list[dict[str, Any]]:
    """What the agent says at a turn of some conversations, beside what was logged there.

    The k-th conversation is shown at its k-th turn, counted round, so that openings are not all that is
    seen. Turns whose history fills the context are left out.
    """
    policy, a = LmPolicy(agent.lm), agent.acting
    places: list[tuple[Dialogue, Prompt, str]] = []
    # Evenly spread: neighbours in a file are often alike.
    step = max(1, len(dialogues) // SHOWN)
    for k in range(min(SHOWN, len(dialogues))):
        d = dialogues[k * step]
        turns = [i for i, x in enumerate(d.messages) if x.role == d.agent_role]
        at = turns[k % len(turns)]
        history = history_of(d, at)
        if has_room(policy, agent.chat, history, a.max_new_tokens):
            places.append((d, history, spoken(d.messages[at])))
    if not places:
        return []
    replies = sample_replies(
        policy,
        agent.chat,
        [history for _, history, _ in places],
        group=EACH,
        seed=seed,
        max_new_tokens=a.max_new_tokens,
        decoding=Decoding(a.temperature, a.top_k, a.top_p),
    )
    return [
        {
            "id": d.id,
            "heard": history[-1].content if history else "",
            "logged": logged,
            "said": [{"text": r.text, "stopped": r.stopped} for r in replies[i * EACH : (i + 1) * EACH]],
        }
        for i, (d, history, logged) in enumerate(places)
    ]


def history_of(d: Dialogue, before: int) -> Prompt:
    """The messages before one, as the model reads them: it speaks as the assistant whoever the agent is."""
    partner = {"assistant": "user"}
    return tuple(
        Message("assistant" if x.role == d.agent_role else partner.get(x.role, x.role), spoken(x))
        for x in d.messages[:before]
    )
