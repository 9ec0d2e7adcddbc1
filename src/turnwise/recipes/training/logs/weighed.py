"""A clone that learns from the logs once more, under a critic that says which words were good."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from turnwise.data.dialogue import Dialogue
from turnwise.models.lm.parts import context_of, trunk_of
from turnwise.models.lm.policies import LmPolicy
from turnwise.recipes.catalogue import Algorithm
from turnwise.recipes.opened import open_policy
from turnwise.recipes.settings.learning import Learning
from turnwise.recipes.settings.train import LogSettings
from turnwise.recipes.training.critic import open_critic
from turnwise.recipes.training.language_model import named_base
from turnwise.recipes.training.learning import ready
from turnwise.recipes.training.logs.clones import expect_no_frozen_trunk, speaking
from turnwise.recipes.training.logs.material import Material, encoded
from turnwise.recipes.training.machine import Machine
from turnwise.rollout.agent import Acting, Agent
from turnwise.run.files.digests import digest_of


def weighed_by(
    algorithm: Algorithm,
    critic: Any,
    learnt: Sequence[Dialogue],
    held: Sequence[Dialogue],
    settings: LogSettings,
    policy: Any,
    learning: Learning,
    m: Machine,
) -> Material:
    """The cloned policy, which learns itself, and the critic that its rows are weighed by."""
    expect_no_frozen_trunk(algorithm, settings)
    cloned, name = open_policy(policy)
    opened = open_critic(critic, cloned.lm, cloned.tokenizer, name)
    content = {"policy": digest_of(cloned.lm, cloned.tokenizer), "critic": opened.content}
    base = named_base(policy) if learning.adapters == "kept" else None
    chat, context = cloned.chat, context_of(cloned.lm)
    lm = ready(cloned.lm.requires_grad_(), learning)
    acting = Acting(max_new_tokens=settings.max_new_tokens)
    rows, heldout = encoded(learnt, held, chat, context, m)

    def agent(trained: nn.Module) -> Agent:
        return speaking(trained, cloned.tokenizer, acting, learning, base)

    return Material(
        chat=chat,
        context=context,
        module=LmPolicy(lm),
        trunk=trunk_of(lm),
        vocab=lm.config.vocab_size,
        rows=rows,
        heldout=heldout,
        lengths=rows.conversation_lengths,
        cuts=rows.cuts,
        agent=agent,
        begun_from={"policy": name, "critic": opened.name},
        judge=lambda trained: {},
        content=content,
        under=opened,
        beside=[opened.critic],
    )
