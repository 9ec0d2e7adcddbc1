"""A critic of logs that another run begins with or learns under: opened, and held against its policy."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

from turnwise.models.lm.critics import TokenCritic, TurnCritic
from turnwise.models.lm.parts import trunk_of
from turnwise.recipes.held_out import HeldOut
from turnwise.recipes.opened import held_of
from turnwise.recipes.trained import Policy
from turnwise.rollout.load import load_agent
from turnwise.run.errors import SettingError
from turnwise.run.files.digests import digest_of


@dataclass(frozen=True)
class OpenedCritic:
    """A critic, in the units of the task, and where it comes from."""

    critic: TokenCritic | TurnCritic = field(repr=False)
    return_std: float
    """standard deviation of the returns that it learnt from"""
    name: str
    """how a run's config records it"""
    held: HeldOut | None = field(default=None, repr=False)
    """what its run held out of its logs"""

    @property
    def content(self) -> str:
        """A digest of it."""
        return digest_of(self.critic)

    def in_deviations(self) -> TokenCritic | TurnCritic:
        """A copy whose values are in standard deviations of the return, the unit in which it learnt."""
        made = copy.deepcopy(self.critic)
        made.scale_(1 / self.return_std)
        return made


def name_of(source: Any) -> str:
    """How a critic is called that was given as a policy, or as its folder."""
    return source.name if isinstance(source, Policy) else str(source)


def open_critic(source: Any, lm: Any, tokenizer: Any, policy: str) -> OpenedCritic:
    """The critic of a policy that has one (MC, ILQL, TurnIQL), or of its run folder.

    SettingError unless it is a critic of tokens or turns on a trunk of the shape of `lm`'s, with the same
    tokenizer; `policy` is how that model is called.
    """
    name = name_of(source)
    agent = source.agent if isinstance(source, Policy) else load_agent(source)
    found = agent.critic
    if not isinstance(found, TokenCritic | TurnCritic):
        raise SettingError("critic", name, "a run with a critic of tokens or turns (mc, ilql, turn-iql)")
    mine, its = (tuple(p.shape for p in x.parameters()) for x in (trunk_of(lm), found.trunk))
    if mine != its or agent.tokenizer.get_vocab() != tokenizer.get_vocab():
        raise SettingError("critic", name, f"a critic that was learnt on {policy}, or on one of its shape")
    return OpenedCritic(found, agent.acting.return_std, name, held_of(source))
