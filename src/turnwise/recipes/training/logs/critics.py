"""A critic of logged conversations beside its algorithm: a trunk, a unit, and a judge once it learnt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn

from turnwise.data.dialogue import Dialogue
from turnwise.data.rows import rescaled
from turnwise.data.tokens import Tokens
from turnwise.evaluation.measures.critics.tokens import measure_critic
from turnwise.evaluation.measures.shifts import is_far, measure_shift
from turnwise.models.lm.critics import Estimand, FrozenTrunk, TokenCritic, TurnCritic, on_trunk
from turnwise.models.lm.encoder_decoder.trunk import is_encoder_decoder
from turnwise.models.lm.lora import adapter_of
from turnwise.models.lm.parts import context_of, trunk_of
from turnwise.recipes.catalogue import Algorithm
from turnwise.recipes.opened import open_policy
from turnwise.recipes.settings.learning import Learning
from turnwise.recipes.settings.train import LogSettings
from turnwise.recipes.training.learning import autocast, expect_arithmetic, ready_beside
from turnwise.recipes.training.logs.frozen import FrozenFeatures, expect_frozen
from turnwise.recipes.training.logs.material import Material, encoded, measured
from turnwise.recipes.training.machine import Machine
from turnwise.rollout.agent import Agent
from turnwise.run.errors import InputError
from turnwise.run.files.digests import digest_of
from turnwise.run.folder import write_json
from turnwise.run.passes import Passes

Part = tuple[Sequence[Dialogue], Sequence[Tokens]]
"""Conversations and their token rows, in the same order."""


def spread(learnt: Sequence[Dialogue]) -> tuple[float, float, list[str]]:
    """Mean and standard deviation of the returns to learn from, and what is to be warned of.

    The deviation is 1 if all returns are equal: nothing can be divided by 0.
    """
    returns = np.array([d.undiscounted_return() for d in learnt])
    mean, std = float(returns.mean()), float(returns.std(ddof=1)) if len(returns) > 1 else 0.0
    if std > 1e-9 * (1 + abs(mean)):
        return mean, std, []
    doubt = (
        f"all {len(learnt):,} conversations to learn from have the return {returns[0]:g}: a critic learns "
        "from them no better and no worse, and beta is per unit of return"
    )
    return mean, 1.0, [doubt]


def judge_critic(agent: Agent, estimand: Estimand, learnt: Part, held: Part, m: Machine) -> dict[str, Any]:
    """What the critic knows of returns, and how far it moves the policy; written as critic.json for the page.

    Warns of a shift that is far. The critic's values, and the rewards of the rows, are in the task's units.
    """
    found = measure_critic(agent, estimand, learnt, held, m.seed)
    found["shift"] = shift = measure_shift(agent, held[1] or learnt[1])
    write_json(m.out / "critic.json", found)
    if shift is not None and is_far(shift):
        m.warn(shift["sentence"])
    return found


def critic_on(
    algorithm: Algorithm,
    c: Any,
    learnt: Sequence[Dialogue],
    held: Sequence[Dialogue],
    settings: LogSettings,
    policy: Any,
    learning: Learning,
    m: Machine,
) -> Material:
    """A critic on a copy of the cloned policy's trunk; its heads start at the mean return."""
    expect_frozen(settings.frozen_trunk, learning.lora_rank, settings.features, m)
    cloned, name = open_policy(policy)
    if is_encoder_decoder(cloned.lm):
        raise InputError(
            f"{name}: an encoder-decoder ({cloned.lm.config.model_type}), on which no values of tokens or "
            "turns are learnt; expected a causal language model, or an algorithm of clones, preferences or "
            "policy gradients (bc, dpo, rloo, grpo, ...)"
        )
    chat, context = cloned.chat, context_of(cloned.lm)
    trunk, tokens = trunk_of(cloned.lm), cloned.lm.get_output_embeddings().weight.detach()
    mean, std, doubts = spread(learnt)
    # It learns in standard deviations of the return: with the same rewards in another unit, the same steps.
    # It learns on a trunk of its own, so that the policy stays exactly the clone; or on none, if the policy's
    # has read everything beforehand.
    own = None if settings.frozen_trunk else ready_beside(cloned.lm, learning)
    learns = FrozenTrunk() if own is None else trunk_of(own)
    critic = algorithm.module.new_critic(c, learns, tokens, mean / std)
    acting = replace(algorithm.module.acting(c), max_new_tokens=settings.max_new_tokens, return_std=std)
    rows, heldout = encoded(learnt, held, chat, context, m)
    estimand = algorithm.module.estimand(c)

    def agent(trained: nn.Module) -> Agent:
        if not isinstance(trained, TokenCritic | TurnCritic):  # it learns something that guides nobody
            return Agent(cloned.lm, cloned.tokenizer, None, acting)
        trained.scale_(std)  # back into the units of the task
        adapter = None if own is None else adapter_of(own, trained.trunk)
        critic = on_trunk(trained, trunk) if own is None else trained
        if adapter is not None:
            # What acts is what is saved and loaded: adapters beside the policy, in the policy's precision.
            critic.trunk = trunk_of(adapter.folded_into(cloned.lm))
        elif own is not None:
            critic.trunk = critic.trunk.float()
        return Agent(cloned.lm, cloned.tokenizer, critic, acting, critic_adapter=adapter)

    def judge(trained: Agent) -> dict[str, Any]:
        if trained.critic is None:
            return {}
        return {"critic": judge_critic(trained, estimand, (learnt, rows), (measured(held), heldout), m)}

    read: Sequence[Sequence[Tokens]] = (rows, heldout)
    features = None
    if settings.frozen_trunk:
        expect_arithmetic(learning, m.device)
        features = FrozenFeatures(trunk, tokens.shape[1], read, settings.features, Passes(autocast(learning)))
        read = features.rows()
    return Material(
        chat=chat,
        context=context,
        module=critic,
        trunk=None if own is None else learns,
        vocab=len(tokens),
        beside=[cloned.lm],
        rows=rescaled(read[0], 1 / std),
        heldout=rescaled(read[1], 1 / std),
        lengths=rows.conversation_lengths,
        cuts=rows.cuts,
        agent=agent,
        begun_from={"policy": name},
        judge=judge,
        features=features,
        warnings=doubts,
        content={"policy": digest_of(cloned.lm, cloned.tokenizer)},
    )
