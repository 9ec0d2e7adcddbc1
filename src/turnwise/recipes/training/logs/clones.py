"""A clone of the logged agent: what it begins as, how well it predicts its words, and what it says itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn

from turnwise.algorithms.logs import bc
from turnwise.data.chat.format import ChatFormat
from turnwise.data.dialogue import Dialogue, spoken
from turnwise.data.feedback import Prompt
from turnwise.data.splits.choices import (
    chosen,
    evenly,
    returns_of,
    unrated,
)
from turnwise.data.tokens import Tokens
from turnwise.envs.dialogue import Message
from turnwise.evaluation.measures.wording import measure_wording
from turnwise.models.lm.lora import merged
from turnwise.models.lm.parts import context_of, trunk_of
from turnwise.models.lm.policies import LmPolicy
from turnwise.recipes.catalogue import Algorithm
from turnwise.recipes.settings.learning import Learning
from turnwise.recipes.settings.train import LogSettings, Start
from turnwise.recipes.training.language_model import base_name, begin
from turnwise.recipes.training.learning import (
    kept_adapter,
    ready,
)
from turnwise.recipes.training.logs.material import Material, encoded, measured
from turnwise.recipes.training.machine import Machine
from turnwise.rollout.agent import Acting, Agent
from turnwise.rollout.engines.decoding import Decoding
from turnwise.rollout.replies import has_room, sample_replies
from turnwise.run.errors import SettingError
from turnwise.run.files.digests import digest_of
from turnwise.run.folder import write_json

TOKENIZED = 100_000
"""conversations, at most, whose words a fresh tokenizer is trained on: its pieces have settled by then"""
SHOWN = 8
"""places of conversations at which a clone is let speak"""
EACH = 2
"""replies of the clone at each of them"""


def speaking(
    trained: nn.Module, tokenizer: Any, acting: Acting, learning: Learning, base: str | None
) -> Agent:
    """An agent of a language model that has learnt, which no critic guides."""
    assert isinstance(trained, LmPolicy)
    adapter = kept_adapter(trained.lm, learning, base)
    return Agent(merged(trained.lm).float(), tokenizer, None, acting, adapter)


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


def expect_no_frozen_trunk(algorithm: Algorithm, settings: LogSettings) -> None:
    """SettingError for settings of critics, where the language model itself learns."""
    if settings.frozen_trunk or settings.features is not None:
        name, value = ("frozen_trunk", True) if settings.frozen_trunk else ("features", settings.features)
        raise SettingError(name, value, f"nothing: {algorithm.title} trains the trunk; it is for critics")


def clone_from(
    algorithm: Algorithm,
    config: bc.Config,
    learnt: Sequence[Dialogue],
    held: Sequence[Dialogue],
    settings: LogSettings,
    start: Start,
    learning: Learning,
    m: Machine,
) -> Material:
    """A language model to clone into, one that exists or a fresh one."""
    base = base_name(start, learning)
    expect_no_frozen_trunk(algorithm, settings)
    heard = chosen(learnt, evenly(len(learnt), TOKENIZED))
    lm, tokenizer = begin(start, (spoken(x) for d in heard for x in d.messages))
    content = {} if start.model is None else {"model": digest_of(lm, tokenizer)}
    chat, context = ChatFormat(tokenizer), context_of(lm)
    lm = ready(lm, learning)
    acting = Acting(max_new_tokens=settings.max_new_tokens)
    rows, heldout = encoded(learnt, held, chat, context, m)
    kept: range | np.ndarray = range(len(learnt))
    if bc.filters(config):
        # A conversation that was cut before anybody said how it went is not among the best.
        kept = bc.keep(np.where(unrated(learnt), -np.inf, returns_of(learnt)), config)

    def agent(trained: nn.Module) -> Agent:
        return speaking(trained, tokenizer, acting, learning, base)

    learnt_rows = rows.of(kept)  # those to learn from were encoded first, so that their places are the same

    def judge(trained: Agent) -> dict[str, Any]:
        return {"wording": judge_clone(trained, (learnt, learnt_rows), (measured(held), heldout), m)}

    return Material(
        chat=chat,
        context=context,
        module=LmPolicy(lm),
        trunk=trunk_of(lm),
        vocab=lm.config.vocab_size,
        rows=learnt_rows,
        heldout=heldout,
        lengths=rows.conversation_lengths,
        cuts=rows.cuts,
        agent=agent,
        begun_from=start.facts(),
        judge=judge,
        content=content,
    )
